import type { TransmitChoice } from '../config/config.ts';
import type { ConfigMap } from './config-map.ts';
import { ConfigFlag } from './layout.ts';

const FLAGS: Readonly<Record<TransmitChoice, number>> = {
  auto: ConfigFlag.MASQUERADE | ConfigFlag.PROBE | ConfigFlag.ENCAP,
  masquerade: ConfigFlag.MASQUERADE,
  encap: ConfigFlag.ENCAP,
};

/** Tells the programs how to carry pod packets to peers. Flows that are there change over with their next packets. */
export function setTransmitMode(config: ConfigMap, choice: TransmitChoice): void {
  config.setFlags(FLAGS[choice], FLAGS.auto & ~FLAGS[choice]);
}
