/** The commands for a node whose transport address changes at run time, as scripts for the namespaces concerned. */
import type { Family } from '../lab.ts';
import { TUNNEL_DEVICES, UPLINK, carriers, isDirect, transportAddress } from './addressing.ts';
import type { NodePlan } from './addressing.ts';
import { batch, peerForwarding, peerLines, podRoutes, sysctls } from './setup.ts';

/** Script for inside a node: changes its own transport address of one family. */
export function moveScript(old: NodePlan, moved: NodePlan, family: Family): string {
  const { router, prefixLength } = moved.transport[family] ?? {};
  const [from, to] = [transportAddress(old, family), transportAddress(moved, family)];
  return (
    // The new address is a secondary one at first, and goes with the old one if it is not promoted.
    sysctls({ [`net/ipv4/conf/${UPLINK}/promote_secondaries`]: 1 }) +
    batch('ip', [
      `address add ${to}/${prefixLength ?? ''} dev ${UPLINK}${family === 'ipv6' ? ' nodad' : ''}`,
      `address del ${from}/${prefixLength ?? ''} dev ${UPLINK}`,
      ...(router === undefined ? [] : [`route replace default via ${router}`]),
      ...(carriers(moved).includes(family)
        ? [`link set ${TUNNEL_DEVICES[family]} type vxlan id ${moved.tunnel.vni} local ${to}`]
        : []),
    ])
  );
}

/** Script for inside a node: a peer's transport address of one family is another one now. */
export function peerMovedScript(node: NodePlan, peer: NodePlan, family: Family): string {
  const routes = isDirect(node, peer, family) ? peerLines(node, peer) : [];
  return (
    batch('bridge', carriers(node).includes(family) ? [peerForwarding(peer, family)] : []) +
    batch('ip', replacing(routes))
  );
}

/** Script for inside the router: the way to a node's pods, without a tunnel. */
export function routerMovedScript(node: NodePlan): string {
  const routes = node.encapMode === 'noEncap' ? podRoutes(node) : [];
  return batch('ip', replacing(routes));
}

function replacing(routes: readonly string[]): string[] {
  return routes.map((line) => line.replace('route add', 'route replace'));
}
