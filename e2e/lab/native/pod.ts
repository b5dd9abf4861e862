/** A pod: a namespace with one end of a veth pair. */
import type { Endpoint, Node, OffloadFlags, Pod } from '../lab.ts';
import { POD_DEVICE } from './addressing.ts';
import type { PodPlan } from './addressing.ts';
import { NativePlace } from './place.ts';
import type { LabContext } from './place.ts';

/** What a pod needs of its node. */
export interface PodHost extends Node {
  offload(flags: OffloadFlags, device?: string): Promise<void>;
}

export class NativePod extends NativePlace implements Pod {
  readonly node: Node;
  readonly endpoint: Endpoint;
  readonly #host: PodHost;

  constructor(context: LabContext, host: PodHost, plan: PodPlan, mtu: number) {
    super(context, {
      name: plan.name,
      namespace: plan.namespace,
      address: plan.address,
      address6: plan.address6,
      device: POD_DEVICE,
      mtu,
      mac: plan.mac,
    });
    this.node = host;
    this.#host = host;
    this.endpoint = {
      namespace: plan.podNamespace,
      name: plan.name,
      containerId: plan.containerId,
      ifName: plan.hostDevice,
      ips: [plan.address, ...(plan.address6 === undefined ? [] : [plan.address6])],
      mac: plan.mac,
    };
  }

  override async offload(flags: OffloadFlags): Promise<void> {
    await Promise.all([super.offload(flags), this.#host.offload(flags, this.endpoint.ifName)]);
  }
}
