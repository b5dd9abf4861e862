/** What the demo measures. */
import { iperf, requestResponse, requireSound } from '../lab/measure.ts';
import { onOneCpu } from '../bench/cpu.ts';
import type { Test } from '../bench/rounds.ts';
import { UDP } from './established.ts';
import type { Figure } from './report.ts';

/** Seconds of each measurement; whole, as iperf3 wants. */
const SECONDS = 1;
/** Of request/response; the uncounted part is for connecting, first packets on the slow path, caches. */
const DURATION = { seconds: SECONDS, warmupSeconds: 0.2 } as const;

export const TESTS: readonly Test<Figure>[] = [
  {
    title: 'TCP stream',
    run: async ({ pair }) => ({ tcpStream: (await iperf(pair, { seconds: SECONDS })).gbitPerS }),
  },
  {
    title: 'TCP request/response',
    run: async ({ lab, pair }) => {
      const result = await onOneCpu(() => requestResponse(lab, pair, { proto: 'tcp', ...DURATION }));
      requireSound('TCP request/response', pair, result);
      return { tcpRate: result.rate, tcpP50: result.p50Us, tcpP99: result.p99Us };
    },
  },
  {
    title: 'UDP request/response',
    run: async ({ lab, pair }) => {
      const result = await onOneCpu(() => requestResponse(lab, pair, { proto: 'udp', ...DURATION, ...UDP }));
      requireSound('UDP request/response', pair, result);
      return { udpRate: result.rate, udpP50: result.p50Us, udpP99: result.p99Us };
    },
  },
];
