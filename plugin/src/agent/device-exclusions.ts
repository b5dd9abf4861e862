/** What the node's devices tell of Antrea's modes. */
import { Reason } from '../dataplane/layout.ts';
import type { Notes } from '../dataplane/notes.ts';
import type { ExclusionSink } from '../exclusion/exclusions.ts';

/** Antrea's WireGuard device. Antrea leaves it where it is when WireGuard is switched off. */
const WIREGUARD_DEVICE = 'antrea-wg0';

/** ifindex of a device that is not in use. */
const NOTE = 'wireguard-leftover';

type LeftoverNotes = Pick<Notes, 'get' | 'set' | 'delete'>;

/** What is looked at of a device. */
export interface Device {
  readonly name: string;
  readonly ifindex: number;
}

/**
 * WireGuard by its device: traffic between nodes is excluded while there is one, for where the configuration of antrea-agent
 * is not read or has not been read lately. Configuration that says otherwise explains the device that was there when it was
 * read, but no later one; also for the next start, which would else stop everything for as long as it reads.
 */
export class WireGuardDevice {
  readonly #sink: ExclusionSink;
  readonly #notes: LeftoverNotes;
  /** ifindex of the device that is there. */
  #present: number | undefined;
  /** ifindex of one that is not in use. */
  #leftover: number | undefined;

  /** @param notes of earlier starts; forgotten where this one reads no configuration */
  constructor(
    sink: ExclusionSink,
    notes: LeftoverNotes,
    { readsConfiguration }: { readonly readsConfiguration: boolean },
  ) {
    this.#sink = sink;
    this.#notes = notes;
    if (readsConfiguration) this.#leftover = Number(notes.get(NOTE) ?? 0);
    else notes.delete(NOTE);
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
    if (this.#leftover === undefined) this.#notes.delete(NOTE);
    else this.#notes.set(NOTE, String(this.#leftover));
    this.#tell();
  }

  #tell(): void {
    const excluded = this.#present !== undefined && this.#present !== this.#leftover;
    const detail = `device ${WIREGUARD_DEVICE}: WireGuard`;
    this.#sink({ node: excluded ? [{ scope: 'inter-node', reason: Reason.ENCRYPTION, detail }] : [], pods: [] });
  }
}
