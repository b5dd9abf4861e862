/** `xmasq top` and `xmasq trace` on real flows: one that goes fast, and three that do not, each for another cause. */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { eventually, sleep, type Place, type Pod } from '../lab/lab.ts';
import { freshPort, withServer } from '../lab/measure.ts';
import { up, type NativeLab } from '../lab/native/native.ts';
import { ADMISSION, EMULATED, stretched } from '../lab/scale.ts';
import { startSidecars, type CliResult, type LabSidecars } from '../lab/sidecar.ts';

let lab: NativeLab;
let sidecars: LabSidecars;
let a: Pod;
let b: Pod;

beforeAll(async () => {
  lab = await up({ podsPerNode: 1 });
  [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
  sidecars = await startSidecars(lab);
});
afterEach(() => lab.policy.clearMarks());
afterAll(async () => {
  await sidecars.down();
  await lab.down();
});

/** Seconds of a trace, and the time limit of a command that takes a few of them. */
const SECONDS = stretched(2);
const LIMIT_MS = stretched(30_000);
/** Of each client per second. */
const REQUESTS = EMULATED ? 10 : 100;

/** Requests over one TCP connection to a port that has no other user, while `use` runs. */
function withRequests<T>(to: Place, port: number, use: () => Promise<T>): Promise<T> {
  const rr = lab.tool('rr');
  const at = ['--tcp', '--port', String(port)];
  const pace = ['--interval-us', String(1_000_000 / REQUESTS), '--seconds', String(stretched(60))];
  return withServer(to, [rr, 'server', ...at], async () => {
    const client = await a.spawn([
      rr,
      'client',
      ...at,
      '--to',
      to.address,
      ...pace,
      '--timeout-ms',
      String(stretched(5000)),
    ]);
    try {
      return await use();
    } finally {
      await client.stop();
    }
  });
}

function xmasq(...args: string[]): Promise<CliResult> {
  return sidecars.node(0).cli(args, LIMIT_MS);
}

interface Explanation {
  readonly path: string;
  readonly mode: string;
  readonly reason: string;
  readonly fastPackets: number;
  readonly slowPackets: number;
  readonly causes: readonly { readonly reason: string; readonly action: string }[];
  readonly text: readonly string[];
}

/** Traces the pod's flow to this port to its end. */
async function traced(port: number, seconds = SECONDS): Promise<{ changes: string[]; explanation: Explanation }> {
  const args = ['trace', '--pod', `default/${a.name}`, '--protocol', 'tcp', '--port', String(port)];
  const { code, stdout, stderr } = await xmasq(...args, '--seconds', String(seconds), '-o', 'json');
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const documents = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { changes?: { what: string; text: string }[]; explanation?: Explanation });
  const explanation = documents.at(-1)?.explanation;
  if (explanation === undefined) throw new Error(`no explanation: ${stdout}`);
  return {
    changes: documents.flatMap(({ changes = [] }) => changes.map(({ what, text }) => `${what}: ${text}`)),
    explanation,
  };
}

interface Top {
  readonly hitRatio: number | null;
  readonly intervalMs: number;
  readonly flows: readonly {
    readonly sourceIp: string;
    readonly destinationPort: number;
    readonly path: string;
    readonly mode: string;
    readonly reason: string;
    readonly rates: Readonly<Record<string, number>>;
  }[];
}

/** What `xmasq top` shows of the flow to this port in one interval. */
async function top(port: number, ...options: string[]): Promise<{ all: Top; flow: Top['flows'][number] }> {
  const { code, json, stdout } = await xmasq('top', '--count', '1', '--interval', '1', '-o', 'json', ...options);
  expect({ code, stdout }).toMatchObject({ code: 0 });
  const all = json as Top;
  const flow = all.flows.find(({ destinationPort }) => destinationPort === port);
  if (flow === undefined) throw new Error(`top shows no flow to port ${port}: ${stdout}`);
  return { all, flow };
}

test('a flow that is fast: its rates in both directions, and how it became so', async () => {
  const port = freshPort();
  await withRequests(b, port, async () => {
    await sidecars.waitFast({ port });
    const [{ all, flow }, { changes, explanation }] = [await top(port), await traced(port)];
    expect(flow).toMatchObject({ sourceIp: a.address, path: 'FLOW_PATH_FAST', mode: 'TRANSMIT_MODE_MASQUERADE' });
    // A request and a reply each time, and an acknowledgement now and then.
    const { txPackets = 0, rxPackets = 0, txBits = 0, rxBits = 0, slowPackets } = flow.rates;
    for (const packets of [txPackets, rxPackets]) {
      expect(packets).toBeGreaterThan(REQUESTS / 4);
      expect(packets).toBeLessThan(REQUESTS * 3);
    }
    // An IP header and a TCP header at least.
    expect(txBits).toBeGreaterThan(txPackets * 40 * 8);
    expect(rxBits).toBeGreaterThan(rxPackets * 40 * 8);
    expect(slowPackets).toBe(0);
    expect(all.hitRatio).toBeGreaterThan(0.9);

    expect(explanation).toMatchObject({ path: 'fast', mode: 'masquerade', reason: '', causes: [], slowPackets: 0 });
    expect(explanation.fastPackets).toBeGreaterThan((REQUESTS * SECONDS) / 4);
    expect(changes).toEqual(
      expect.arrayContaining([
        'node: ready',
        `path: fast, masquerade${ADMISSION === 'conntrack' ? '' : ', by approval'}`,
        'keys: each node knows the key of the other',
        expect.stringMatching(/^conntrack: allows it: ESTABLISHED, replied, assured, mark 0x3$/),
        `peer: node ${lab.node(1).name}, capable, alive`,
        'way there: masquerade',
      ]),
    );

    // Forgotten, it is admitted anew under the eyes of a trace.
    const tracing = traced(port, 2 * SECONDS);
    await sleep(stretched(1000));
    expect((await xmasq('flush', '--pod', `default/${a.name}`)).code).toBe(0);
    const again = await tracing;
    expect(again.changes).toContain('event: admitted');
    expect(again.explanation).toMatchObject({ path: 'fast' });
    expect(again.explanation.slowPackets).toBeGreaterThan(0);
  });
}, 60_000);

test('a connection that policy has not allowed: conntrack says so', async () => {
  const port = freshPort();
  // Committed, and not allowed.
  await lab.policy.markPort(port, 0);
  await withRequests(b, port, async () => {
    const { changes, explanation } = await traced(port);
    expect(changes).toContain('conntrack: ct-not-allowed: ESTABLISHED, replied, assured, mark 0x0');
    expect(explanation).toMatchObject({ path: 'slow', fastPackets: 0 });
    expect(explanation.causes.map(({ reason }) => reason)).toContain('ct-not-allowed');
    expect(explanation.slowPackets).toBeGreaterThan(0);
    const { flow } = await top(port, '--sort', 'slow');
    expect(flow).toMatchObject({
      path: 'FLOW_PATH_SLOW',
      reason: ADMISSION === 'conntrack' ? 'REASON_CT_NOT_ALLOWED' : 'REASON_NO_APPROVAL',
    });
    expect(flow.rates).toMatchObject({ txPackets: 0, rxPackets: 0 });
    expect(flow.rates['slowPackets']).toBeGreaterThan(REQUESTS / 4);
  });
}, 60_000);

test('a destination that is no pod', async () => {
  const port = freshPort();
  await withRequests(lab.node(1), port, async () => {
    const { changes, explanation } = await traced(port);
    expect(changes).toContain('path: slow, refused: not-pod');
    expect(changes.filter((text) => text.startsWith('peer:'))).toEqual([]);
    expect(explanation).toMatchObject({ path: 'slow', reason: 'not-pod', fastPackets: 0 });
    expect(explanation.causes[0]).toMatchObject({
      reason: 'not-pod',
      action: expect.stringContaining('cluster state'),
    });
    expect((await top(port)).flow).toMatchObject({ path: 'FLOW_PATH_SLOW', reason: 'REASON_NOT_POD' });
  });
}, 60_000);

test('a peer without XMasq: told of a flow that nobody remembers, and where the tunnel is left, of one in it', async () => {
  const peer = lab.node(1);
  const port = freshPort();
  await withRequests(b, port, async () => {
    const [fast] = await sidecars.waitFast({ port });
    const ends = ['--source', `${a.address}:${fast?.sourcePort ?? 0}`, '--destination', `${b.address}:${port}`];
    sidecars.setCapability(peer, undefined);
    await eventually('known to the first node', async () => {
      return (await sidecars.node(0).admin.peers()).every(({ capable }) => !capable);
    });
    const { code, stdout } = await xmasq('trace', ...ends, '--protocol', 'tcp', '--seconds', String(SECONDS));
    expect(code).toBe(0);
    expect(stdout).toMatch(/^\d\d:\d\d:\d\d\.\d{3} {2}peer {7}node n2, not capable, /m);
    expect(stdout).toMatch(/^peer-not-capable: .*\n {2}to do: run XMasq there and declare it$/m);
    expect(stdout).toMatch(/^ {2}\d+ peer-not-capable: /m);
    expect((await xmasq('top', '--count', '1', '--interval', '1')).stdout).toMatch(
      /^slow because: .*peer-not-capable \d/m,
    );

    await sidecars.node(0).restart({ transmitMode: 'auto' });
    await sidecars.node(0).waitFast({ port });
    const { changes, explanation } = await traced(port);
    expect(changes.join('\n')).toMatch(/^path: fast, encap.*, not masqueraded: peer-not-capable$/m);
    expect(changes).toContain('way there: encap, not masqueraded: peer-not-capable');
    expect(explanation).toMatchObject({ path: 'fast', mode: 'encap', reason: 'peer-not-capable' });
    expect((await top(port)).flow).toMatchObject({
      path: 'FLOW_PATH_FAST',
      mode: 'TRANSMIT_MODE_ENCAP',
      reason: 'REASON_PEER_NOT_CAPABLE',
    });
  });
}, 60_000);
