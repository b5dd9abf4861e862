/** Mode encap beside Open vSwitch with VXLAN. */
import { describeEncap } from './support/encap.ts';

describeEncap('VXLAN', { type: 'vxlan' });
describeEncap('VXLAN, another port, with checksums', { type: 'vxlan', port: 14789, checksum: true }, { brief: true });
