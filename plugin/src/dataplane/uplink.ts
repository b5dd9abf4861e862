/**
 * The devices that carry the node's transport addresses, one of each family at most: finding them, the two programs on each,
 * and when fast traffic starts.
 */
import { NO_ADDRESS } from '../bpf/address.ts';
import type { Degradation } from '../grpc/backend.ts';
import type { Link, LinkAddress } from '../netlink/rtnetlink.ts';
import { errorMessage } from '../util/errors.ts';
import { isDeviceGone, type Attacher } from './attach.ts';
import type { ConfigMap } from './config-map.ts';
import type { Degradations } from './degradations.ts';
import { ConfigFlag, type DataPlaneConfig } from './layout.ts';
import { SECOND, type Clock, type Log } from './ports.ts';
import { HOOKS, type TcProgram } from './programs.ts';

/** Both bits together: this node takes part. */
export const ACTIVE_FLAGS = ConfigFlag.ADMIT | ConfigFlag.SEND;

type Family = 4 | 6;
const FAMILIES: readonly Family[] = [4, 6];

/** What was found for a family, or why nothing was. */
export type UplinkSearch =
  | { readonly family: Family; readonly found: UplinkDevice }
  | { readonly family: Family; readonly found?: undefined; readonly problem: string; readonly action: string };

export interface UplinkDevice {
  readonly device: string;
  readonly ifindex: number;
  /** Canonical text. */
  readonly address: string;
  /** Bits of the subnet that the address is in. */
  readonly prefixLength: number;
  /** Bytes. */
  readonly mtu: number;
}

/**
 * The device with a transport address of the node.
 * @param address canonical text of that family, from the cluster state
 * @param devices configured names; empty: whichever has the address
 */
export function findUplink(
  family: Family,
  address: string,
  devices: readonly string[],
  links: readonly Link[],
  addresses: readonly LinkAddress[],
): UplinkSearch {
  const action = "correct uplink.device in the configuration or the node's address in the cluster state";
  const [only, ...others] = devices;
  if (only !== undefined && others.length === 0 && !links.some((link) => link.name === only)) {
    return { family, problem: `the uplink ${only} does not exist`, action };
  }
  const matching = links
    .filter((link) => devices.length === 0 || devices.includes(link.name))
    .flatMap((link) => {
      const holder = addresses.find((entry) => entry.ifindex === link.ifindex && entry.address === address);
      return holder === undefined ? [] : [{ link, prefixLength: holder.prefixLength }];
    });
  const [match, second] = matching;
  if (match === undefined) {
    const where =
      only === undefined
        ? 'no device has'
        : others.length === 0
          ? `the uplink ${only} does not have`
          : `none of the uplinks ${devices.join(', ')} has`;
    return { family, problem: `${where} the node's transport address ${address}`, action };
  }
  const { link, prefixLength } = match;
  if (second !== undefined) {
    return {
      family,
      problem: `${link.name} and ${second.link.name} both have the node's transport address ${address}`,
      action: 'name the uplink: uplink.device in the configuration',
    };
  }
  return { family, found: { device: link.name, ifindex: link.ifindex, address, prefixLength, mtu: link.mtu } };
}

export type UplinkProgram = 'uplink_ingress' | 'uplink_egress';

export interface UplinkOptions {
  readonly config: ConfigMap;
  readonly attacher: Attacher;
  readonly programs: Readonly<Record<UplinkProgram, TcProgram>>;
  /** Loads a program once more; see Attacher.moveFirst. */
  readonly reload: (name: UplinkProgram) => TcProgram;
  readonly degradations: Degradations;
  readonly log: Log;
  readonly now: Clock;
  /** Seconds from attaching to taking part: packets queued before must have left without the hook. */
  readonly startHold: number;
  /** The node is being drained: do not take part. */
  readonly draining: () => boolean;
  /** Called where a transport address is another one than the programs knew last. */
  readonly moved: () => void;
}

/** What another program can do that runs before ours. */
const DISPLACED: Readonly<Record<UplinkProgram, string>> = {
  uplink_ingress: 'what it takes out of the chain is lost, if it is masqueraded',
  uplink_egress: 'what it takes out of the chain could look masqueraded to peers',
};
export const UPLINK_PROGRAMS: readonly UplinkProgram[] = ['uplink_ingress', 'uplink_egress'];

/** What to tell where another program runs before ours. */
export function displacement(name: UplinkProgram, device: string): Degradation {
  return {
    what: `another program runs before ${name}: ${DISPLACED[name]}`,
    where: `${HOOKS[name].direction} of ${device}`,
    action: "attach that program behind XMasq's; XMasq tries to be first again",
  };
}

/** Longest pause between two attempts to be first again, in checks (one a second). */
const MAX_REPOSITION_PAUSE = 60;

/** A program at a device, and the attempts to keep it first there. */
interface Place {
  program: TcProgram;
  /** Checks until the next attempt. */
  pause: number;
  /** The pause after that one. */
  nextPause: number;
}

type Found = ReadonlyMap<Family, UplinkDevice>;

/** What the programs have to know. */
function configOf(found: Found): Partial<DataPlaneConfig> {
  return {
    uplinkAddr4: found.get(4)?.address ?? NO_ADDRESS,
    uplinkAddr6: found.get(6)?.address ?? NO_ADDRESS,
    uplinkIfindex4: found.get(4)?.ifindex ?? 0,
    uplinkIfindex6: found.get(6)?.ifindex ?? 0,
  };
}

interface KnownAddress {
  readonly address: string;
  readonly ifindex: number;
}

type Known = ReadonlyMap<Family, KnownAddress>;

/** Is what they knew still so? What is new, or gone, changes nothing of the rest. */
function unchanged(known: Known, found: Found): boolean {
  return [...found].every(([family, { address, ifindex }]) => {
    const before = known.get(family);
    return before === undefined || (before.address === address && before.ifindex === ifindex);
  });
}

/** Is an address another one? */
function hasMoved(known: Known, found: Found): boolean {
  return [...found].some(([family, { address }]) => ![undefined, address].includes(known.get(family)?.address));
}

function text(found: Found): string {
  return JSON.stringify([...found.values()].map(({ ifindex, address }) => [ifindex, address]));
}

/** Keeps the programs on the uplinks and decides when this node takes part. */
export class Uplink {
  readonly #o: UplinkOptions;
  #found: Found = new Map();
  /** When the hold ends; undefined: there is none. */
  #holdUntil: bigint | undefined;
  /** By device. */
  readonly #places = new Map<number, Readonly<Record<UplinkProgram, Place>>>();
  /** What the programs knew last of each family, also if the node has no such address now: peers may go on knowing it. */
  readonly #known = new Map<Family, KnownAddress>();
  #displaced = 0;

  constructor(options: UplinkOptions) {
    this.#o = options;
  }

  /** The devices that are in use, by family, IPv4 first; one that has both addresses twice. */
  get devices(): readonly UplinkDevice[] {
    return FAMILIES.flatMap((family) => this.#found.get(family) ?? []);
  }

  /** How often another program was found before one of ours. */
  get displaced(): number {
    return this.#displaced;
  }

  /** True from attaching until the node takes part. */
  get holding(): boolean {
    return this.#holdUntil !== undefined;
  }

  /**
   * Brings the programs to where the uplinks are now. Can be called at any time; what fails becomes a degradation. Without an
   * uplink of one family the node takes part with the other.
   * @param searches one for each family of which the node has a transport address
   */
  update(searches: readonly UplinkSearch[]): void {
    const { degradations } = this.#o;
    const found = new Map<Family, UplinkDevice>();
    for (const family of FAMILIES) {
      const search = searches.find((one) => one.family === family);
      if (search?.found !== undefined) found.set(family, search.found);
      degradations.put(
        `uplink-${family}`,
        search === undefined || search.found !== undefined
          ? undefined
          : { what: search.problem, where: 'uplink', action: search.action },
      );
    }
    if (found.size === 0) {
      this.#lose();
      return;
    }
    try {
      this.#bring(found);
      degradations.clear('uplink-attach');
    } catch (error) {
      this.#lose();
      if (isDeviceGone(error)) return;
      degradations.set('uplink-attach', {
        what: `the programs cannot be attached to the uplink: ${errorMessage(error)}`,
        where: [...new Set([...found.values()].map(({ device }) => device))].join(', '),
        action: 'see the log; it is tried again by itself',
      });
    }
  }

  /** Once a second: ends the hold, and watches the places of the programs in their chains. */
  tick(): void {
    const { config, now, log, draining } = this.#o;
    for (const [ifindex, device] of new Map(this.devices.map((one) => [one.ifindex, one.device]))) {
      for (const name of UPLINK_PROGRAMS) this.#checkPosition(name, ifindex, device);
    }
    if (this.#holdUntil === undefined || now() < this.#holdUntil) return;
    this.#holdUntil = undefined;
    if (draining()) return;
    config.setFlags(ACTIVE_FLAGS);
    log.info({ devices: this.devices.map(({ device }) => device) }, 'this node takes part: flows are accelerated');
  }

  /** After a drain was taken back: take part as soon as the hold, if any, allows it. */
  resume(): void {
    if (this.#found.size > 0 && this.#holdUntil === undefined) this.#o.config.setFlags(ACTIVE_FLAGS);
  }

  #bring(found: Found): void {
    const { config, attacher, now, startHold, log, draining } = this.#o;
    const ifindexes = [...new Set([...found.values()].map(({ ifindex }) => ifindex))];
    // Before attaching, which puts this build's programs in place of an earlier one's.
    const complete = ifindexes.every((ifindex) => UPLINK_PROGRAMS.every((name) => attacher.has(name, ifindex)));
    const { uplinkAddr4, uplinkIfindex4, uplinkAddr6, uplinkIfindex6 } = config.get();
    if (uplinkAddr4 !== NO_ADDRESS) this.#known.set(4, { address: uplinkAddr4, ifindex: uplinkIfindex4 });
    if (uplinkAddr6 !== NO_ADDRESS) this.#known.set(6, { address: uplinkAddr6, ifindex: uplinkIfindex6 });
    const same = complete && unchanged(this.#known, found);
    const continues = same && (config.has(ACTIVE_FLAGS) || this.#holdUntil !== undefined || draining());
    if (!continues) config.setFlags(0, ACTIVE_FLAGS);
    for (const name of UPLINK_PROGRAMS) {
      for (const ifindex of ifindexes) attacher.attach(this.#place(ifindex)[name].program, ifindex);
    }
    if (hasMoved(this.#known, found)) this.#o.moved();
    config.update(configOf(found));
    for (const { program, ifindex } of attacher.list()) {
      if (!ifindexes.includes(ifindex) && program.startsWith('uplink_')) attacher.detach(program, ifindex);
    }
    for (const ifindex of this.#places.keys()) if (!ifindexes.includes(ifindex)) this.#forget(ifindex);
    if (text(found) !== text(this.#found)) {
      for (const { device, ifindex, address } of found.values()) log.info({ device, ifindex, address }, 'uplink');
    }
    this.#found = found;
    if (!continues) this.#holdUntil = now() + BigInt(Math.round(startHold * 1000)) * (SECOND / 1000n);
  }

  #place(ifindex: number): Readonly<Record<UplinkProgram, Place>> {
    const before = this.#places.get(ifindex);
    if (before !== undefined) return before;
    const { programs } = this.#o;
    const place = (name: UplinkProgram): Place => ({ program: programs[name], pause: 0, nextPause: 1 });
    const places = { uplink_ingress: place('uplink_ingress'), uplink_egress: place('uplink_egress') };
    this.#places.set(ifindex, places);
    return places;
  }

  #forget(ifindex: number): void {
    this.#places.delete(ifindex);
    for (const name of UPLINK_PROGRAMS) this.#o.degradations.clear(`${name}-position-${ifindex}`);
  }

  #lose(): void {
    if (this.#found.size > 0) this.#o.config.setFlags(0, ACTIVE_FLAGS);
    this.#found = new Map();
    this.#holdUntil = undefined;
  }

  /** Other programs of a hook may end its chain, or change packets: ours must come first. */
  #checkPosition(name: UplinkProgram, ifindex: number, device: string): void {
    const { attacher, degradations, reload, log } = this.#o;
    const place = this.#place(ifindex)[name];
    const position = attacher.position(place.program, ifindex);
    if (position === 'first') {
      degradations.clear(`${name}-position-${ifindex}`);
      place.pause = 0;
      place.nextPause = 1;
      return;
    }
    if (position === 'absent') {
      log.warn({ device, program: name }, 'a program was detached by somebody: attaching it again');
      this.#bring(this.#found);
      return;
    }
    if (place.pause > 0) {
      place.pause--;
      return;
    }
    this.#displaced++;
    degradations.set(`${name}-position-${ifindex}`, displacement(name, device));
    try {
      place.program = attacher.moveFirst(place.program, ifindex, () => reload(name));
    } catch (error) {
      log.warn({ err: error, device, program: name }, 'the program could not be put first');
    }
    // Two programs that both insist on being first must not fight at full speed.
    place.pause = place.nextPause;
    place.nextPause = Math.min(2 * place.nextPause, MAX_REPOSITION_PAUSE);
  }
}
