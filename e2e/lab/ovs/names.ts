/** Antrea's names and numbers of what it makes in Open vSwitch. */

/** The integration bridge. */
export const BRIDGE = 'br-int';

/** The gateway port, which is a device of the host too. */
export const GATEWAY = 'antrea-gw0';

/** The tunnel port; it is no device of the host. */
export const TUNNEL = 'antrea-tun0';

/** The tunnel's device, as Open vSwitch names it. */
export const TUNNEL_DEVICE = 'genev_sys_6081';

export const GENEVE_PORT = 6081;

/** OpenFlow ports that antrea-agent asks for. */
export const TUNNEL_OFPORT = 32768;
export const GATEWAY_OFPORT = 32769;

/** The round of antrea-agent's first start: the top 16 bits of its flows' cookies, and `roundNum` of the bridge. */
export const ROUND = 1;
