/** What the node's devices tell of Antrea's modes. */
import { Reason } from '../dataplane/layout.ts';
import type { ExclusionSink } from '../exclusion/exclusions.ts';

/** Antrea's WireGuard device. Antrea leaves it where it is when WireGuard is switched off. */
const WIREGUARD_DEVICE = 'antrea-wg0';

/** What is looked at of a device. */
export interface Device {
  readonly name: string;
  readonly ifindex: number;
}

/**
 * WireGuard by its device: traffic between nodes is excluded while there is one, for where the configuration of antrea-agent
 * is not read or has not been read lately. Configuration that says otherwise explains the device that was there when it was
 * read, but no later one.
 */
export class WireGuardDevice {
  readonly #sink: ExclusionSink;
  /** ifindex of the device that is there. */
  #present: number | undefined;
  /** ifindex of one that is not in use. */
  #leftover: number | undefined;

  constructor(sink: ExclusionSink) {
    this.#sink = sink;
  }

  /** @param devices all devices of the node's network namespace */
  look(devices: Iterable<Device>): void {
    this.#present = undefined;
    for (const { name, ifindex } of devices) if (name === WIREGUARD_DEVICE) this.#present = ifindex;
    this.#tell();
  }

  /** The configuration was read. @param inUse it asks for WireGuard */
  configured(inUse: boolean): void {
    this.#leftover = inUse ? undefined : this.#present;
    this.#tell();
  }

  #tell(): void {
    const excluded = this.#present !== undefined && this.#present !== this.#leftover;
    const detail = `device ${WIREGUARD_DEVICE}: WireGuard`;
    this.#sink({ node: excluded ? [{ scope: 'inter-node', reason: Reason.ENCRYPTION, detail }] : [], pods: [] });
  }
}
