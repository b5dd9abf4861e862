/** The device that carries the node's transport address: finding it, the two programs on it, and when fast traffic starts. */
import type { Link, LinkAddress } from '../netlink/rtnetlink.ts';
import { formatIpv4, parseIpv4 } from '../netlink/ip.ts';
import { errorMessage } from '../util/errors.ts';
import { isDeviceGone, type Attacher } from './attach.ts';
import type { ConfigMap } from './config-map.ts';
import type { Degradations } from './degradations.ts';
import { ConfigFlag } from './layout.ts';
import { SECOND, type Clock, type Log } from './ports.ts';
import { HOOKS, type Program } from './programs.ts';

/** Both bits together: this node takes part. */
export const ACTIVE_FLAGS = ConfigFlag.ADMIT | ConfigFlag.SEND;

/** What was found, or why nothing was. */
export type UplinkSearch =
  { readonly found: UplinkDevice } | { readonly found?: undefined; readonly problem: string; readonly action: string };

export interface UplinkDevice {
  readonly device: string;
  readonly ifindex: number;
  /** Host-order IPv4. */
  readonly address: number;
  /** Bytes. */
  readonly mtu: number;
}

/**
 * The device with the node's transport address.
 * @param address IPv4 text, from the cluster state
 * @param device configured name; undefined: whichever has the address
 */
export function findUplink(
  address: string,
  device: string | undefined,
  links: readonly Link[],
  addresses: readonly LinkAddress[],
): UplinkSearch {
  const holders = addresses.filter((entry) => entry.family === 4 && entry.address === address);
  const action = "correct uplink.device in the configuration or the node's address in the cluster state";
  if (device !== undefined && !links.some((link) => link.name === device)) {
    return { problem: `the uplink ${device} does not exist`, action };
  }
  const matching = links.filter(
    (link) =>
      holders.some((holder) => holder.ifindex === link.ifindex) && (device === undefined || link.name === device),
  );
  const [link, second] = matching;
  if (link === undefined) {
    const where = device === undefined ? 'no device has' : `the uplink ${device} does not have`;
    return { problem: `${where} the node's transport address ${address}`, action };
  }
  if (second !== undefined) {
    return {
      problem: `${link.name} and ${second.name} both have the node's transport address ${address}`,
      action: 'name the uplink: uplink.device in the configuration',
    };
  }
  return { found: { device: link.name, ifindex: link.ifindex, address: parseIpv4(address), mtu: link.mtu } };
}

export type UplinkProgram = 'uplink_ingress' | 'uplink_egress';

export interface UplinkOptions {
  readonly config: ConfigMap;
  readonly attacher: Attacher;
  readonly programs: Readonly<Record<UplinkProgram, Program>>;
  /** Loads a program once more; see Attacher.moveFirst. */
  readonly reload: (name: UplinkProgram) => Program;
  readonly degradations: Degradations;
  readonly log: Log;
  readonly now: Clock;
  /** Seconds from attaching to taking part: packets queued before must have left without the hook. */
  readonly startHold: number;
  /** The node is being drained: do not take part. */
  readonly draining: () => boolean;
}

/** What another program can do that runs before ours. */
const DISPLACED: Readonly<Record<UplinkProgram, string>> = {
  uplink_ingress: 'what it takes out of the chain is lost, if it is masqueraded',
  uplink_egress: 'what it takes out of the chain could look masqueraded to peers',
};
const UPLINK_PROGRAMS: readonly UplinkProgram[] = ['uplink_ingress', 'uplink_egress'];

/** Longest pause between two attempts to be first again, in checks (one a second). */
const MAX_REPOSITION_PAUSE = 60;

/** Keeps the programs on the uplink and decides when this node takes part. */
export class Uplink {
  readonly #o: UplinkOptions;
  readonly #programs: Record<UplinkProgram, Program>;
  #current: UplinkDevice | undefined;
  /** When the hold ends; undefined: there is none. */
  #holdUntil: bigint | undefined;
  /** Checks until the next attempt to be first, and the pause after that one. */
  readonly #places: Readonly<Record<UplinkProgram, { pause: number; nextPause: number }>> = {
    uplink_ingress: { pause: 0, nextPause: 1 },
    uplink_egress: { pause: 0, nextPause: 1 },
  };
  #displaced = 0;

  constructor(options: UplinkOptions) {
    this.#o = options;
    this.#programs = { ...options.programs };
  }

  get current(): UplinkDevice | undefined {
    return this.#current;
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
   * Brings the programs to where the uplink is now. Can be called at any time; what fails becomes a degradation.
   */
  update(search: UplinkSearch): void {
    const { degradations } = this.#o;
    if (search.found === undefined) {
      degradations.set('uplink', { what: search.problem, where: 'uplink', action: search.action });
      this.#lose();
      return;
    }
    degradations.clear('uplink');
    const { found } = search;
    try {
      this.#bring(found);
      degradations.clear('uplink-attach');
    } catch (error) {
      this.#lose();
      if (isDeviceGone(error)) return;
      degradations.set('uplink-attach', {
        what: `the programs cannot be attached to the uplink: ${errorMessage(error)}`,
        where: found.device,
        action: 'see the log; it is tried again by itself',
      });
    }
  }

  /** Once a second: ends the hold, and watches the places of the programs in their chains. */
  tick(): void {
    const { config, now, log, draining } = this.#o;
    for (const name of UPLINK_PROGRAMS) if (this.#current !== undefined) this.#checkPosition(name, this.#current);
    if (this.#holdUntil === undefined || now() < this.#holdUntil) return;
    this.#holdUntil = undefined;
    if (draining()) return;
    config.setFlags(ACTIVE_FLAGS);
    log.info({ device: this.#current?.device }, 'this node takes part: flows are accelerated');
  }

  /** After a drain was taken back: take part as soon as the hold, if any, allows it. */
  resume(): void {
    if (this.#current !== undefined && this.#holdUntil === undefined) this.#o.config.setFlags(ACTIVE_FLAGS);
  }

  #bring(found: UplinkDevice): void {
    const { config, attacher, now, startHold, log, draining } = this.#o;
    const before = config.get();
    // Before attaching, which puts this build's programs in place of an earlier one's.
    const complete = attacher.has('uplink_ingress', found.ifindex) && attacher.has('uplink_egress', found.ifindex);
    const same = before.uplinkIfindex === found.ifindex && before.uplinkAddr4 === found.address;
    const continues = same && complete && (config.has(ACTIVE_FLAGS) || this.#holdUntil !== undefined || draining());
    if (!continues) config.setFlags(0, ACTIVE_FLAGS);
    for (const name of UPLINK_PROGRAMS) attacher.attach(this.#programs[name], found.ifindex);
    config.update({ uplinkIfindex: found.ifindex, uplinkAddr4: found.address });
    for (const { program, ifindex } of attacher.list()) {
      if (ifindex !== found.ifindex && program.startsWith('uplink_')) attacher.detach(program, ifindex);
    }
    if (this.#current?.ifindex !== found.ifindex || this.#current.address !== found.address) {
      log.info({ device: found.device, ifindex: found.ifindex, address: formatIpv4(found.address) }, 'uplink');
    }
    this.#current = found;
    if (!continues) this.#holdUntil = now() + BigInt(Math.round(startHold * 1000)) * (SECOND / 1000n);
  }

  #lose(): void {
    if (this.#current !== undefined) this.#o.config.setFlags(0, ACTIVE_FLAGS);
    this.#current = undefined;
    this.#holdUntil = undefined;
  }

  /** Other programs of a hook may end its chain, or change packets: ours must come first. */
  #checkPosition(name: UplinkProgram, uplink: UplinkDevice): void {
    const { attacher, degradations, reload, log } = this.#o;
    const place = this.#places[name];
    const position = attacher.position(this.#programs[name], uplink.ifindex);
    if (position === 'first') {
      degradations.clear(`${name}-position`);
      place.pause = 0;
      place.nextPause = 1;
      return;
    }
    if (position === 'absent') {
      log.warn({ device: uplink.device, program: name }, 'a program was detached by somebody: attaching it again');
      this.#bring(uplink);
      return;
    }
    if (place.pause > 0) {
      place.pause--;
      return;
    }
    this.#displaced++;
    degradations.set(`${name}-position`, {
      what: `another program runs before ${name}: ${DISPLACED[name]}`,
      where: `${HOOKS[name].direction} of ${uplink.device}`,
      action: "attach that program behind XMasq's; XMasq tries to be first again",
    });
    try {
      this.#programs[name] = attacher.moveFirst(this.#programs[name], uplink.ifindex, () => reload(name));
    } catch (error) {
      log.warn({ err: error, device: uplink.device, program: name }, 'the program could not be put first');
    }
    // Two programs that both insist on being first must not fight at full speed.
    place.pause = place.nextPause;
    place.nextPause = Math.min(2 * place.nextPause, MAX_REPOSITION_PAUSE);
  }
}
