/** What the state of Open vSwitch's database keeps off the fast path. */
import { Reason } from '../gen/layouts.ts';
import { NOTHING_EXCLUDED, type ExclusionList, type NodeExclusion } from '../exclusion/exclusions.ts';
import type { OvsdbState, OvsdbTunnel, VlanPod } from './state.ts';

/** Tunnels whose outer header XMasq knows. */
const SUPPORTED_TUNNELS: ReadonlySet<string> = new Set(['geneve', 'vxlan']);

/** The exclusions that follow from a state. `flowRestoreWait` is none: present flows go on, only learning pauses. */
export function exclusionsOf(state: OvsdbState): ExclusionList {
  if (!state.synced) return NOTHING_EXCLUDED;
  const node: NodeExclusion[] = [];
  if (state.hwOffload) {
    node.push({ scope: 'node', reason: Reason.HW_OFFLOAD, detail: 'Open_vSwitch other_config:hw-offload=true' });
  }
  const [uplink] = state.uplinks;
  if (uplink !== undefined) {
    node.push({ scope: 'node', reason: Reason.BRIDGING, detail: `uplink port ${uplink} in Antrea's bridge` });
  }
  const ipsec = state.tunnels.find((tunnel) => tunnel.ipsec);
  if (ipsec !== undefined) {
    node.push({ scope: 'inter-node', reason: Reason.ENCRYPTION, detail: `IPsec tunnel port ${ipsec.name}` });
  }
  const other = state.tunnels.find(({ type }) => !SUPPORTED_TUNNELS.has(type));
  if (other !== undefined) {
    node.push({ scope: 'inter-node', reason: Reason.TUNNEL_TYPE, detail: describeTunnel(other) });
  }
  return { node, pods: state.vlanPods.map(excludeVlan) };
}

function describeTunnel({ name, type }: OvsdbTunnel): string {
  return `tunnel port ${name} of type ${type === '' ? 'unknown' : type}`;
}

function excludeVlan({ namespace, name, tag }: VlanPod): ExclusionList['pods'][number] {
  return { pod: { namespace, name }, reason: Reason.POD_VLAN, detail: `VLAN ${tag} on its port` };
}
