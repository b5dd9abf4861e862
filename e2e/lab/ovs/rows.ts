/** What antrea-agent writes into OVSDB, as arguments of `ovs-vsctl`. Pure functions. */
import type { NodePlan, PodPlan } from '../native/addressing.ts';
import { BRIDGE, GATEWAY, GATEWAY_OFPORT, L7_OFPORTS, L7_PORTS, ROUND, TUNNEL, TUNNEL_OFPORT } from './names.ts';
import { TUNNEL_PORTS } from '../packet.ts';
import { gatewayMac } from './setup.ts';

/** What Antrea's start script sets before ovs-vswitchd starts: no packet is forwarded before the flows are there. */
export function initialSettings(): string[] {
  return [...['set', 'Open_vSwitch', '.', 'other_config:flow-restore-wait=true', 'other_config:max-revalidator=200']];
}

/** Ends the wait once the flows are there. */
export function flowsRestored(): string[] {
  return ['remove', 'Open_vSwitch', '.', 'other_config', 'flow-restore-wait'];
}

/** The bridge with its gateway and tunnel ports. */
export function bridgeRows(node: NodePlan): string[] {
  const { type, port, checksum } = node.tunnel;
  return command(
    ['add-br', BRIDGE],
    ['set', 'Bridge', BRIDGE, 'datapath_type=system', 'protocols=OpenFlow10,OpenFlow15'],
    ['add-port', BRIDGE, TUNNEL],
    ['set', 'Interface', TUNNEL, `type=${type}`, `ofport_request=${TUNNEL_OFPORT}`],
    ['set', 'Interface', TUNNEL, 'options:key=flow', 'options:remote_ip=flow'],
    // Written only if they are configured (pkg/ovs/ovsconfig/ovs_client.go, createTunnelPort).
    ...(port === TUNNEL_PORTS[type] ? [] : [['set', 'Interface', TUNNEL, `options:dst_port=${port}`]]),
    ...(checksum ? [['set', 'Interface', TUNNEL, 'options:csum=true']] : []),
    ['set', 'Port', TUNNEL, 'external_ids:antrea-type=tunnel'],
    ['add-port', BRIDGE, GATEWAY],
    ['set', 'Interface', GATEWAY, 'type=internal', `ofport_request=${GATEWAY_OFPORT}`],
    ['set', 'Interface', GATEWAY, `mac="${gatewayMac(node)}"`],
    ['set', 'Port', GATEWAY, 'external_ids:antrea-type=gateway'],
  );
}

/** The round number, which antrea-agent writes when its flows are complete. */
export function roundRow(): string[] {
  return ['set', 'Bridge', BRIDGE, `external_ids:roundNum=${ROUND}`];
}

/** The ports of the L7 engine. */
export function l7Rows(): string[] {
  return command(
    ...(['to', 'from'] as const).flatMap((way) => [
      ['add-port', BRIDGE, L7_PORTS[way]],
      ['set', 'Interface', L7_PORTS[way], 'type=internal', `ofport_request=${L7_OFPORTS[way]}`],
      ['set', 'Port', L7_PORTS[way], 'external_ids:antrea-type=traffic-control'],
    ]),
  );
}

/** The ports of pods. */
export function podRows(pods: readonly PodPlan[]): string[] {
  return command(
    ...pods.flatMap((pod) => [
      ['add-port', BRIDGE, pod.hostDevice],
      ['set', 'Port', pod.hostDevice, ...Object.entries(podExternalIds(pod)).map(externalId)],
    ]),
  );
}

/** Removes a pod's port. */
export function deletePodRows(hostDevice: string): string[] {
  return ['del-port', BRIDGE, hostDevice];
}

/** The external ids of a pod's port. */
export function podExternalIds(pod: PodPlan): Readonly<Record<string, string>> {
  return {
    'antrea-type': 'container',
    'attached-mac': pod.mac,
    'ip-address': [pod.address, ...(pod.address6 === undefined ? [] : [pod.address6])].join(','),
    'container-id': pod.containerId,
    'pod-name': pod.name,
    'pod-namespace': pod.podNamespace,
    // The path as antrea-agent's container sees it.
    'net-ns': `/host/var/run/netns/${pod.namespace}`,
  };
}

function externalId([key, value]: [string, string]): string {
  return `external_ids:${key}="${value}"`;
}

/* One transaction of several commands. */
function command(...parts: readonly (readonly string[])[]): string[] {
  return parts.flatMap((part, i) => (i === 0 ? [...part] : ['--', ...part]));
}
