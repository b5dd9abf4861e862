/** Follows the node's devices: those of pods, the uplink, and what they tell of Antrea. */
import type { Notes } from '../dataplane/notes.ts';
import { monotonic, type Log } from '../dataplane/ports.ts';
import { Throttle } from '../dataplane/throttle.ts';
import { findUplink } from '../dataplane/uplink.ts';
import { xdpPlace } from '../dataplane/uplink-xdp.ts';
import { familyOf } from '../netlink/ip.ts';
import * as rtnetlink from '../netlink/rtnetlink.ts';
import type { Watch } from '../netlink/subscription.ts';
import type { AgentParts } from './backend.ts';
import type { Closers } from './closers.ts';
import { WireGuardDevice } from './device-exclusions.ts';

/** A watch of the kernel that ended is begun anew after this. */
const REWATCH_MS = 1000;

/** Follows the devices; knows nothing of the uplinks before the first address. */
export interface LinkFollower {
  /** Checks the attachments to pods, and looks for the uplinks again. */
  verify(): void;
  /** The node's transport addresses are these, one of each family at most. */
  setAddresses(addresses: readonly string[]): void;
  /** The configuration of antrea-agent was read. @param wireGuard it asks for WireGuard */
  configured(wireGuard: boolean): void;
}

/** Devices and addresses: pods' interfaces come and go, the uplink may change. */
export function followLinks(
  { endpoints, uplink, uplinkXdp, routing, config, exclusions }: AgentParts,
  notes: Notes,
  log: Log,
  closers: Closers,
): LinkFollower {
  const wireGuard = new WireGuardDevice(exclusions.source('devices'), notes, {
    readsConfiguration: config.clusterState.kubernetes !== undefined,
  });
  const lookAtDevices = (links: readonly rtnetlink.Link[] = rtnetlink.links()): void => wireGuard.look(links);
  let addresses: readonly string[] = [];
  const isUplink = (ifindex: number): boolean => uplink.devices.some((device) => device.ifindex === ifindex);
  let stopped = false;
  let watch: Watch | undefined;
  const throttle = new Throttle(monotonic);
  const refresh = (links: readonly rtnetlink.Link[] = rtnetlink.links()): void => {
    lookAtDevices(links);
    if (addresses.length === 0) return;
    const present = rtnetlink.addresses();
    uplink.update(
      addresses.map((address) => findUplink(familyOf(address) ?? 4, address, config.uplink.devices, links, present)),
    );
    uplinkXdp.update(config.uplink.xdp === 'off' ? [] : uplink.devices.map(({ ifindex }) => xdpPlace(ifindex, links)));
    routing.setSubnets(uplink.devices);
  };
  /* With two hundred pods a list of all devices is a good part of what a sidecar at rest costs: one for both. */
  const verify = (): void => {
    const links = rtnetlink.links();
    endpoints.verify(links);
    refresh(links);
  };
  const begin = (): void => {
    if (stopped) return;
    watch = rtnetlink.watch({
      onLink: (link) => {
        endpoints.linkAppeared(link.name);
        if (link.name.startsWith('antrea-')) lookAtDevices();
        if (isUplink(link.ifindex) || config.uplink.devices.includes(link.name)) refresh();
      },
      onLinkDeleted: (link) => {
        endpoints.linkDeleted(link.ifindex);
        if (link.name.startsWith('antrea-')) lookAtDevices();
        if (isUplink(link.ifindex)) refresh();
      },
      onAddress: (entry) => {
        if (isUplink(entry.ifindex) || addresses.includes(entry.address)) refresh();
      },
      onOverrun: verify,
      onError: (error, ended) => {
        if (throttle.allows('error')) log.warn({ err: error }, 'watching devices');
        if (ended) setTimeout(begin, REWATCH_MS).unref();
      },
    });
    endpoints.reconcile();
    lookAtDevices();
  };
  begin();
  closers.add(() => {
    stopped = true;
    watch?.close();
  });
  return {
    verify,
    setAddresses(next) {
      // Told with every change of any node.
      if (next.join() === addresses.join()) return;
      addresses = next;
      refresh();
    },
    configured: (inUse) => wireGuard.configured(inUse),
  };
}
