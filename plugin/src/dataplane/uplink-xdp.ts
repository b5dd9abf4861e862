/** uplink_xdp on the device below the uplink, where the configuration asks for it. */
import { join } from 'node:path';
import { isEEXIST, isENODEV } from '../bpf/errors.ts';
import { attachXdp, Link, removePinnedLink } from '../bpf/link.ts';
import { unpin } from '../bpf/pins.ts';
import type { Link as DeviceLink } from '../netlink/rtnetlink.ts';
import { errorMessage } from '../util/errors.ts';
import type { ConfigMap } from './config-map.ts';
import type { Degradations } from './degradations.ts';
import type { PinLayout } from './pins.ts';
import type { Log } from './ports.ts';
import { XDP_PROGRAM_NAME, type Program } from './programs.ts';

/** Where the program belongs. */
export interface XdpPlace {
  /** The uplink, or the device that it is a VLAN of: programs there see whole frames. */
  readonly ifindex: number;
  /** Number of the VLAN that is the uplink; 0: the device itself is. */
  readonly vlan: number;
}

export interface UplinkXdpOptions {
  readonly program: Program<typeof XDP_PROGRAM_NAME>;
  readonly pins: PinLayout;
  readonly config: ConfigMap;
  readonly degradations: Degradations;
  readonly log: Log;
}

const DEGRADATION = 'uplink-xdp';

/** Where uplink_xdp belongs for an uplink: on it, or on the device below if it is a VLAN. */
export function xdpPlace(ifindex: number, links: readonly DeviceLink[]): XdpPlace {
  const link = links.find((candidate) => candidate.ifindex === ifindex);
  return link?.vlanId !== undefined && link.linkIfindex !== undefined
    ? { ifindex: link.linkIfindex, vlan: link.vlanId }
    : { ifindex, vlan: 0 };
}

/** Keeps uplink_xdp where it is wanted. The data plane needs it nowhere: without it tc does its work. */
export class UplinkXdp {
  readonly #o: UplinkXdpOptions;

  constructor(options: UplinkXdpOptions) {
    this.#o = options;
  }

  /** Brings the program to where it is wanted (empty: nowhere). What fails becomes a degradation. */
  update(places: readonly XdpPlace[]): void {
    const { degradations, config } = this.#o;
    const [place, other] = places;
    const usable = other === undefined || (other.ifindex === place?.ifindex && other.vlan === place.vlan);
    removeXdp(this.#o.pins, usable ? place?.ifindex : undefined);
    if (!usable) {
      degradations.set(DEGRADATION, {
        what: 'uplink_xdp serves one uplink, and this node has two',
        where: 'uplink.xdp',
        action: 'set uplink.xdp to "off"; tc restores all packets',
      });
      return;
    }
    if (place === undefined) {
      degradations.clear(DEGRADATION);
      return;
    }
    config.update({ xdpVlan: place.vlan });
    try {
      this.#attach(place.ifindex);
      degradations.clear(DEGRADATION);
    } catch (error) {
      if (isENODEV(error)) return;
      degradations.set(DEGRADATION, {
        what: `uplink_xdp cannot be attached: ${errorMessage(error)}`,
        where: `device ${place.ifindex}`,
        action: 'set uplink.xdp to "off", or remove the XDP program that is there; until then tc restores all packets',
      });
    }
  }

  #attach(ifindex: number): void {
    const { program, pins, log } = this.#o;
    const path = pins.link(XDP_PROGRAM_NAME, ifindex);
    try {
      using link = Link.openPinned(path);
      const info = link.info();
      if (info.ifindex === ifindex) {
        if (info.progId !== program.id) link.update(program.fd);
        return;
      }
    } catch {
      // None is there, or none that can be used.
    }
    unpin(path);
    using link = attachXdp(program.fd, ifindex);
    try {
      link.pin(path);
    } catch (error) {
      if (!isEEXIST(error)) throw error;
    }
    log.info({ ifindex }, 'masqueraded packets are restored by XDP');
  }
}

/** Detaches uplink_xdp everywhere but on one device. @returns from how many */
export function removeXdp(pins: PinLayout, keep?: number): number {
  const prefix = `${XDP_PROGRAM_NAME}-`;
  const names = pins.list(pins.links).filter((name) => name.startsWith(prefix) && name !== `${prefix}${keep}`);
  return names.filter((name) => removePinnedLink(join(pins.links, name))).length;
}
