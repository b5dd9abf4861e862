/** What `bench-modes` measures: some of what bench-micro does. */
import { testsOf } from '../micro/tests.ts';
import type { MicroTest } from '../micro/tests.ts';
import type { FigureFacts } from '../result.ts';

const MEASURED: readonly string[] = ['tcp_stream_1', 'tcp_rr_1', 'tcp_rr_8', 'udp_rr_1', 'udp_rr_8'];

/** The tests, of so many whole seconds each. */
export function modeTests(seconds: number): MicroTest[] {
  return testsOf(seconds).filter(({ facts }) => MEASURED.some((metric) => metric in facts));
}

/** Rates and processor times are told; percentiles are bench-micro's. */
export const FACTS: Readonly<Record<string, FigureFacts>> = Object.fromEntries(
  modeTests(1)
    .flatMap(({ facts }) => Object.entries(facts))
    .filter(([metric]) => MEASURED.includes(metric) || metric.endsWith('_cpu')),
);
