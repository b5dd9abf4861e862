/**
 * `make bench-micro`: streams and request/response with 1 to 64 flows, pod to pod on two nodes, compared with the host
 * network and the overlay. Writes build/bench-micro.json. With --quick a few short rounds, for trying.
 */
import { runBenchmark } from '../run.ts';
import { FACTS, PLOTS, testsOf } from './tests.ts';

process.exitCode = await runBenchmark({
  name: 'bench-micro',
  full: { seconds: 1, rounds: 7, limitMs: 1_800_000 },
  quick: { seconds: 1, rounds: 2, limitMs: 400_000 },
  facts: FACTS,
  plots: PLOTS,
  tests: (_, seconds) => Promise.resolve(testsOf(seconds)),
});
