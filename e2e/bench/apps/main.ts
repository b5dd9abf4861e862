/**
 * `make bench-apps`: real servers and clients of Debian's packages, from a pod to another on two nodes, by its own address and by a
 * ClusterIP, compared with the host network and the overlay. Writes build/bench-apps.json. With --quick a few short rounds, for trying.
 */
import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { runBenchmark } from '../run.ts';
import { addServices, testsOf } from './app.ts';
import { APPS, FACTS, PLOTS, latencyNotes } from './apps.ts';

process.exitCode = await runBenchmark({
  name: 'bench-apps',
  full: { seconds: 3, rounds: 9, limitMs: 1_200_000 },
  quick: { seconds: 1, rounds: 2, limitMs: 200_000 },
  facts: FACTS,
  tests: async (ways, seconds, removal, progress) => {
    const base = await removal.directory('xmasq-bench-');
    chmodSync(base, 0o755);
    const newDirectory = (name: string): string => {
      const directory = join(base, name);
      mkdirSync(directory, { mode: 0o755 });
      return directory;
    };
    await addServices(APPS, ways);
    const tests = [];
    for (const app of APPS) {
      progress(`starting ${app.title} in every lab`);
      tests.push(...(await testsOf(app, ways, seconds, removal, newDirectory)));
    }
    return tests;
  },
  notes: latencyNotes,
  plots: PLOTS,
});
