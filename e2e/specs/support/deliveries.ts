/** Which path packets took into a pod, by two captures: a fast delivery passes the host's end of the veth pair by. */
import { LabError } from '../../lab/lab.ts';
import type { Capture, Pod } from '../../lab/lab.ts';
import type { CapturedPacket } from '../../lab/pcap.ts';

/** Packets that a pod received. */
export interface Deliveries {
  readonly fast: readonly CapturedPacket[];
  readonly slow: readonly CapturedPacket[];
}

/** Watches what reaches a pod, and by which path. */
export class DeliveryWatch {
  readonly #inside: Capture;
  readonly #outside: Capture;
  readonly #pod: Pod;

  private constructor(pod: Pod, inside: Capture, outside: Capture) {
    this.#pod = pod;
    this.#inside = inside;
    this.#outside = outside;
  }

  /** @param filter pcap expression */
  static async start(pod: Pod, filter: string): Promise<DeliveryWatch> {
    // The outer capture is the longer one: whatever the inner one sees by the slow path, the outer one sees, too.
    const outside = await pod.node.capture({ device: pod.endpoint.ifName, direction: 'out', filter });
    return new DeliveryWatch(pod, await pod.capture({ direction: 'in', filter }), outside);
  }

  /** Ends it. Throws if a capture lost packets. */
  async stop(): Promise<Deliveries> {
    const inside = await this.#inside.stop();
    const outside = await this.#outside.stop();
    if (inside.dropped + outside.dropped > 0) throw new LabError(`a capture at ${this.#pod.name} lost packets`);
    const slowly = new Map<string, number>();
    for (const packet of outside.packets) slowly.set(bytesOf(packet), (slowly.get(bytesOf(packet)) ?? 0) + 1);
    const fast: CapturedPacket[] = [];
    const slow: CapturedPacket[] = [];
    for (const packet of inside.packets) {
      const left = slowly.get(bytesOf(packet)) ?? 0;
      slowly.set(bytesOf(packet), left - 1);
      (left > 0 ? slow : fast).push(packet);
    }
    return { fast, slow };
  }
}

function bytesOf({ bytes }: CapturedPacket): string {
  return bytes.toString('latin1');
}
