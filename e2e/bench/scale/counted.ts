/** Instructions of a packet with many flows and peers, counted in a micro-VM: cache misses, which a clock counts, play no part. */
import path from 'node:path';
import { bundleForGuest } from '../../vm/bundle.ts';
import { runCounting } from '../icount/machine.ts';
import type { Instructions } from './figures.ts';

const GUEST = path.join(import.meta.dirname, 'guest.ts');
/** Most of it goes by while an emulated Node.js fills the maps. */
const LIMIT_MS = 30 * 60_000;

/**
 * @param driver from compileDriver
 * @throws Error where the machine or the measurement fails
 */
export async function countInstructions(driver: string): Promise<readonly Instructions[]> {
  const program = await bundleForGuest(GUEST, `import ${JSON.stringify(GUEST)};`);
  const { figures } = await runCounting<Instructions>({
    program,
    env: { XMASQ_BENCH_DRIVER: driver },
    limitMs: LIMIT_MS,
  });
  return figures;
}
