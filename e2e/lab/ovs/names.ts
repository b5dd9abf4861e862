/** Antrea's names and numbers of what it makes in Open vSwitch. */
import type { Tunnel } from '../lab.ts';

/** The integration bridge. */
export const BRIDGE = 'br-int';

/** The gateway port, which is a device of the host too. */
export const GATEWAY = 'antrea-gw0';

/** The tunnel port; it is no device of the host. */
export const TUNNEL = 'antrea-tun0';

/** The tunnel's device, as Open vSwitch names it. */
export function tunnelDevice({ type, port }: Tunnel): string {
  return `${{ geneve: 'genev', vxlan: 'vxlan' }[type]}_sys_${port}`;
}

/** OpenFlow ports that antrea-agent asks for. */
export const TUNNEL_OFPORT = 32768;
export const GATEWAY_OFPORT = 32769;

/** Ports to and from the engine of L7 policies: what goes into the first comes back out of the second. */
export const L7_PORTS = { to: 'antrea-l7-tap0', from: 'antrea-l7-tap1' } as const;
export const L7_OFPORTS = { to: 32774, from: 32775 } as const;

/** All ClusterIPs of the lab's Services are inside this one. */
export const SERVICE_CIDR = '10.96.0.0/16';

/** Next hop of the node's own way to Services, and the source of what it sends itself by one. */
export const VIRTUAL_SERVICE_ADDRESS = '169.254.0.253';

/** The round of antrea-agent's first start: the top 16 bits of its flows' cookies, and `roundNum` of the bridge. */
export const ROUND = 1;
