/** Looks for a text that must not arrive: in every packet that a device sends or receives. */
import type { Lab, Place } from '../../lab/lab.ts';

/** How many frames began their transport payload with the text. */
export interface PayloadWatch {
  /** Ends the watch; throws if it missed packets. */
  stop(): Promise<number>;
}

/** @param source only packets from this address */
export async function watchPayload(lab: Lab, place: Place, payload: string, source?: string): Promise<PayloadWatch> {
  const hex = Buffer.from(payload).toString('hex');
  const from = source === undefined ? [] : ['--src', source];
  const proc = await place.spawn([lab.tool('raw'), 'count', '--dev', place.device, '--payload', hex, ...from]);
  await proc.waitFor(/^ready/);
  return {
    async stop() {
      await proc.stop();
      const { matched, missed } = (await proc.json()) as { matched: number; missed: number };
      if (missed > 0) throw new Error(`the watch at ${place.name} missed ${missed} packets`);
      return matched;
    },
  };
}
