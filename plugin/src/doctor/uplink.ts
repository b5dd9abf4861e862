import type { Config } from '../config/config.ts';
import { findUplink, type UplinkDevice } from '../dataplane/uplink.ts';
import { familyOf } from '../netlink/ip.ts';
import { addresses, linkByIndex, links } from '../netlink/rtnetlink.ts';
import type { ClusterNode } from '../state/cluster.ts';
import { failed, ok, type Outcome, type Verdict } from './finding.ts';

/** The devices that carry the node's transport addresses, found as the sidecar finds them. */
export function checkUplink({ uplink }: Config, own: ClusterNode): Outcome<readonly UplinkDevice[]> {
  const [present, held] = [links(), addresses()];
  const searches = own.addresses.map((address) =>
    findUplink(familyOf(address) ?? 4, address, uplink.devices, present, held),
  );
  const verdicts = searches.map((search): Verdict => {
    if (search.found === undefined) {
      const action = `${search.action}; XMasq runs in the host's network namespace`;
      return failed({ what: search.problem, where: 'uplink', action });
    }
    const { device, ifindex, address, mtu } = search.found;
    if (linkByIndex(ifindex)?.up !== true) {
      return failed({ what: `the uplink ${device} is down`, where: device, action: `ip link set ${device} up` });
    }
    return ok(`${device}, ${address}, MTU ${mtu}`);
  });
  const found = searches.flatMap((search) => search.found ?? []);
  return found.length === 0 ? { verdicts } : { verdicts, value: found };
}
