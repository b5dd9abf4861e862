/**
 * The sidecar's flow export alone in a process, for measurements: node --expose-gc collector.ts CERTIFICATE_DIRECTORY [PROFILE]
 * Prints its port as the first line, then a line of JSON every two seconds, and ends when its input does. Writes PROFILE, a
 * profile of the processor from the second sample with records on, when code is loaded and compiled.
 */
import { monotonic } from '../../plugin/src/dataplane/ports.ts';
import { FlowExport, IssuedCertificates } from '../../plugin/src/flowexport/index.ts';
import { profileSelf } from './profile.ts';

/** A line of the collector; sums since its start. */
export interface CollectorSample {
  readonly flows: number;
  readonly malformed: number;
  /** What the records were to the store. */
  readonly fresh: number;
  readonly updates: number;
  readonly duplicates: number;
  readonly stale: number;
  readonly evicted: number;
  readonly records: number;
  readonly streams: number;
  /** User and system time of the process in microseconds, without the collections that samples force. */
  readonly cpuUs: number;
  readonly rssBytes: number;
  /** Heap and buffers right after a garbage collection. */
  readonly liveBytes: number;
}

let forcedUs = 0;

function processorUs(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

function sample(flowExport: FlowExport): CollectorSample {
  const { server, store, records, open } = flowExport.counts;
  const usedUs = processorUs();
  const cpuUs = usedUs - forcedUs;
  const rss = process.memoryUsage.rss();
  // Node runs with --expose-gc. What has not been collected yet says nothing of what grows.
  globalThis.gc?.();
  forcedUs += processorUs() - usedUs;
  const { heapUsed, external } = process.memoryUsage();
  return {
    flows: server.flows,
    malformed: server.malformed,
    fresh: store.new,
    updates: store.update,
    duplicates: store.duplicate,
    stale: store.stale,
    evicted: store.evicted,
    records,
    streams: open.streams,
    cpuUs,
    rssBytes: rss,
    liveBytes: heapUsed + external,
  };
}

async function main(directory: string, profile: string | undefined): Promise<void> {
  const complain = (fields: object, message: string): void => console.error(message, fields);
  const flowExport = await FlowExport.start({
    port: 0,
    tls: await IssuedCertificates.open({ directory, onProblem: () => undefined }),
    log: { debug: complain, info: complain, warn: complain, error: complain },
    // As on a node whose approvals mode is on, with no pod of these addresses: a look-up for each record.
    allowed: { deviceOf: () => undefined, isApproved: () => false, want: () => undefined, now: monotonic },
  });
  console.log(flowExport.port);
  let busy = 0;
  let endProfile: Promise<() => Promise<void>> | undefined;
  const print = (): void => {
    const line = sample(flowExport);
    console.log(JSON.stringify(line));
    if (line.flows > 0) busy++;
    if (profile !== undefined && busy > 1) endProfile ??= profileSelf(profile);
  };
  const timer = setInterval(print, 2000);
  process.stdin.resume();
  process.stdin.once('end', () => {
    clearInterval(timer);
    print();
    void endProfile?.then((end) => end());
    void flowExport.stop();
  });
}

const [directory, profile] = process.argv.slice(2);
if (directory === undefined) {
  console.error('usage: collector.ts CERTIFICATE_DIRECTORY [PROFILE]');
  process.exitCode = 2;
} else {
  await main(directory, profile);
}
