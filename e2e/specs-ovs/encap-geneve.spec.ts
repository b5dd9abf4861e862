/** Mode encap beside Open vSwitch with Geneve, Antrea's default. */
import { describeEncap } from './support/encap.ts';

describeEncap('Geneve', { type: 'geneve' });
describeEncap('Geneve, another port, with checksums', { type: 'geneve', port: 16081, checksum: true }, { brief: true });
