import { xmasq } from '../../../src/gen/xmasq.js';
import type {
  AdminBackend,
  DrainResult,
  EndpointInfo,
  FlowInfo,
  FlowTrace,
  FlushResult,
  FlushTarget,
  PeerInfo,
  Pod,
  PodEventSink,
  StatusInfo,
  TracedFlow,
  TraceInfo,
  VersionInfo,
} from '../../../src/grpc/backend.ts';
import { NotFoundError } from '../../../src/grpc/backend.ts';

const UNPROVEN = xmasq.v1.Reason.REASON_UNPROVEN;

/** A flow of pod default/web-0, with everything that the test does not care about. */
export function flow(values: Partial<FlowInfo> = {}): FlowInfo {
  return {
    sourceIp: '10.10.1.2',
    destinationIp: '10.10.2.3',
    sourcePort: 40000,
    destinationPort: 80,
    protocol: 6,
    sourcePod: { namespace: 'default', name: 'web-0' },
    peer: 'node-b',
    sameNode: false,
    path: 'fast',
    mode: 'masquerade',
    reason: 0,
    admitted: true,
    approved: false,
    blocked: false,
    keys: { announced: true, received: true, peerComplete: true },
    txPackets: 1000n,
    txBytes: 1_500_000n,
    rxPackets: 500n,
    rxBytes: 26_000n,
    slowPackets: 6n,
    ageMs: 61_000,
    idleMs: 12,
    lastRxMs: 15,
    ...values,
  };
}

/** A look at a flow, with everything that the test does not care about; `timeMs` is set when it is taken. */
export function traceLook(values: Partial<TraceInfo> = {}): TraceInfo {
  return {
    timeMs: 0,
    nodeState: 'ready',
    flow: flow(),
    conntrack: { reason: 0, detail: 'ESTABLISHED, replied, assured, mark 0x3' },
    exclusions: [],
    events: [],
    eventsLost: 0,
    ...values,
  };
}

/** Answers from fields that a test sets; records what was asked of it. */
export class FakeBackend implements AdminBackend {
  readonly calls: unknown[] = [];
  statusInfo: StatusInfo = {
    version: '0.1.0',
    nodeName: 'node-a',
    protocolVersion: 1,
    state: 'ready',
    admission: 'conntrack',
    attach: 'tcx',
    kernelRelease: '6.18.0',
    uplinks: [{ device: 'eth0', ifindex: 2, address: '192.168.77.1', mtu: 1500 }],
    degradations: [],
    exclusions: [],
    sources: [],
    counters: [{ name: 'fast_tx', value: 9_007_199_254_740_991n }],
    reasons: [
      { reason: 0, packets: 0n },
      { reason: 10, packets: 17n },
    ],
    maps: [{ name: 'flows', entries: 2, capacity: 65536 }],
    endpoints: 1,
    peers: 1,
    peersAlive: 1,
    flows: 2,
    uptimeMs: 3_723_000,
  };
  flowList: FlowInfo[] = [flow()];
  failure: Error | undefined;
  /** Flows handed out so far, to see that a reader stops the pass. */
  flowsRead = 0;
  /** Called when a pass over the flows begins. */
  onPass: () => void = () => undefined;
  drainAborted = false;
  /** What the looks of a trace see, one after the other; the last one stays. */
  looks: TraceInfo[] = [traceLook()];
  tracesOpen = 0;

  version(): VersionInfo {
    return { version: '0.1.0', commit: 'abc123', protocolVersion: 1, layoutVersion: 1 };
  }

  status(): Promise<StatusInfo> {
    return this.failure === undefined ? Promise.resolve(this.statusInfo) : Promise.reject(this.failure);
  }

  peers(): Promise<readonly PeerInfo[]> {
    return Promise.resolve([
      {
        nodeName: 'node-b',
        addresses: ['192.168.77.2', 'fd00::2'],
        podCIDRs: ['10.10.2.0/24'],
        capable: true,
        capability: { protocol: 1, incarnation: 'boot-1' },
        alive: true,
        lastLifeMs: 40.4,
        flows: 2,
        paths: [
          {
            ...{ family: 4, pathClass: 'tcp', mode: 'masquerade', reason: 0 },
            ...{ provenMs: 1500, changedMs: 61_000, changes: 1, probes: 4n, answers: 3n },
          },
          {
            family: 4,
            pathClass: 'udp',
            mode: 'masquerade',
            reason: 0,
            provenMs: 900,
            changes: 1,
            probes: 2n,
            answers: 2n,
          },
          { family: 4, pathClass: 'other', mode: 'encap', reason: UNPROVEN, changes: 0, probes: 7n, answers: 0n },
          ...(['tcp', 'udp', 'other'] as const).map(
            (pathClass) =>
              ({ family: 6, pathClass, mode: 'direct', reason: 0, changes: 0, probes: 0n, answers: 0n }) as const,
          ),
        ],
        id: 1,
        epoch: 7,
      },
      {
        nodeName: 'node-c',
        addresses: ['192.168.77.3'],
        podCIDRs: [],
        capable: false,
        alive: false,
        flows: 0,
        paths: [],
        id: 2,
        epoch: 1,
      },
    ]);
  }

  endpoints(): Promise<readonly EndpointInfo[]> {
    return Promise.resolve([
      {
        namespace: 'default',
        pod: 'web-0',
        containerId: 'c0',
        ifName: 'veth0',
        ifindex: 12,
        ips: ['10.10.1.2'],
        mac: '02:00:00:00:00:02',
        attached: true,
        problem: '',
        flows: 2,
        id: 1,
        epoch: 3,
      },
    ]);
  }

  async *flows(): AsyncIterable<FlowInfo> {
    this.onPass();
    if (this.failure !== undefined) throw this.failure;
    for (const one of this.flowList) {
      await Promise.resolve();
      this.flowsRead++;
      yield one;
    }
  }

  trace(traced: TracedFlow): FlowTrace {
    this.calls.push({ trace: traced });
    if (traced.sourceIp !== '10.10.1.2') throw new NotFoundError(`no pod has ${traced.sourceIp}`);
    this.tracesOpen++;
    const began = performance.now();
    let taken = 0;
    return {
      look: () => ({
        ...(this.looks[Math.min(taken++, this.looks.length - 1)] ?? traceLook()),
        timeMs: performance.now() - began,
      }),
      close: () => {
        this.tracesOpen--;
      },
    };
  }

  flush(target: FlushTarget): Promise<FlushResult> {
    this.calls.push(target);
    if (target.kind === 'peer' && target.peer !== 'node-b') {
      return Promise.reject(new NotFoundError(`no peer is named ${target.peer}`));
    }
    return Promise.resolve({ flows: 3n, slots: 2n });
  }

  drain({ wait, signal }: { wait: boolean; signal: AbortSignal }): Promise<DrainResult> {
    this.calls.push({ drain: wait });
    if (!wait) return Promise.resolve({ state: 'draining', remainingMs: 35_000 });
    return new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => {
        this.drainAborted = true;
        reject(signal.reason as Error);
      });
    });
  }

  undrain(): Promise<DrainResult> {
    this.calls.push('undrain');
    return Promise.resolve({ state: 'ready', remainingMs: 0 });
  }
}

/** Records what it is told, as short text. */
export class FakeSink implements PodEventSink {
  readonly log: string[] = [];
  failure: Error | undefined;
  /** Set to hold every call until it resolves. */
  gate: Promise<void> = Promise.resolve();

  snapshot(pods: readonly Pod[]): Promise<void> {
    return this.#record(`snapshot ${pods.map((pod) => pod.name).join(',')}`);
  }

  added(pod: Pod): Promise<void> {
    return this.#record(`added ${pod.name} ${pod.ifName} ${pod.ips.join(',')} ${pod.mac}`);
  }

  changed(pod: Pod, previous: Pod): Promise<void> {
    return this.#record(`changed ${pod.name} ${previous.ips.join(',')} -> ${pod.ips.join(',')}`);
  }

  removed(pod: Pod): Promise<void> {
    return this.#record(`removed ${pod.name}`);
  }

  async #record(entry: string): Promise<void> {
    await this.gate;
    if (this.failure !== undefined) throw this.failure;
    this.log.push(entry);
  }
}
