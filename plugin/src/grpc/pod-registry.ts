import { status } from '@grpc/grpc-js';
import type { Pod } from './backend.ts';
import { RpcError, invalidArgument } from './errors.ts';

/**
 * The pods of this node as last told, and the rules that hold among them: no two have the same container ID, interface or
 * address. Every method checks first and changes after, so an error changes nothing.
 */
export class PodRegistry {
  readonly #maxPods: number;
  #pods = new Map<string, Pod>();
  /** Which pod has an interface or an address; keys `if <name>` and `ip <address>`. */
  #owners = new Map<string, Pod>();

  /** @param maxPods how many pods the node can have */
  constructor(maxPods: number) {
    this.#maxPods = maxPods;
  }

  /** The pod with this container ID. */
  get(containerId: string): Pod | undefined {
    return this.#pods.get(containerId);
  }

  /** Replaces everything. @throws RpcError INVALID_ARGUMENT, RESOURCE_EXHAUSTED */
  replace(pods: readonly Pod[]): void {
    const next = new PodRegistry(this.#maxPods);
    for (const pod of pods) next.add(pod);
    this.#pods = next.#pods;
    this.#owners = next.#owners;
  }

  /** @throws RpcError INVALID_ARGUMENT, RESOURCE_EXHAUSTED */
  add(pod: Pod): void {
    const same = this.#pods.get(pod.containerId);
    if (same !== undefined) {
      throw invalidArgument(
        `${label(pod)}: field container_id "${pod.containerId}" is that of ${label(same)} already; expected one per pod`,
      );
    }
    if (this.#pods.size >= this.#maxPods) {
      throw new RpcError(
        status.RESOURCE_EXHAUSTED,
        `${label(pod)}: this node has ${this.#pods.size} pods already, and that is all XMasq can take`,
      );
    }
    this.#checkUnique(pod);
    this.#insert(pod);
  }

  /** Returns the old values. @throws RpcError INVALID_ARGUMENT */
  change(pod: Pod): Pod {
    const previous = this.#pods.get(pod.containerId);
    if (previous === undefined) {
      throw invalidArgument(
        `${label(pod)}: changed, but no pod has container_id "${pod.containerId}"; expected an added event or a snapshot with it first`,
      );
    }
    this.#checkUnique(pod);
    this.#delete(previous);
    this.#insert(pod);
    return previous;
  }

  /** Returns the removed pod; undefined: it was not known. */
  remove(containerId: string): Pod | undefined {
    const pod = this.#pods.get(containerId);
    if (pod !== undefined) this.#delete(pod);
    return pod;
  }

  #checkUnique(pod: Pod): void {
    for (const [key, field, value] of claims(pod)) {
      const owner = this.#owners.get(key);
      if (owner !== undefined && owner.containerId !== pod.containerId) {
        throw invalidArgument(
          `${label(pod)}: field ${field} "${value}" belongs to ${label(owner)} (container ${owner.containerId}); expected that to be removed first`,
        );
      }
    }
  }

  #insert(pod: Pod): void {
    this.#pods.set(pod.containerId, pod);
    for (const [key] of claims(pod)) this.#owners.set(key, pod);
  }

  #delete(pod: Pod): void {
    this.#pods.delete(pod.containerId);
    for (const [key] of claims(pod)) this.#owners.delete(key);
  }
}

/** What a pod has for itself alone: key in `#owners`, field, value. */
function claims(pod: Pod): [key: string, field: string, value: string][] {
  return [
    [`if ${pod.ifName}`, 'if_name', pod.ifName],
    ...pod.ips.map((ip): [string, string, string] => [`ip ${ip}`, 'ips', ip]),
  ];
}

function label(pod: Pod): string {
  return `pod ${pod.namespace}/${pod.name}`;
}
