/** Policies that are tightened while connections run have the same outcome with XMasq as without: each case runs both ways. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { ANTREA, eventually, sleep } from '../lab/lab.ts';
import type { Pod, Protocol } from '../lab/lab.ts';
import { freshPort } from '../lab/measure.ts';
import type { Stage } from '../lab/ovs/policy.ts';
import { residue, up } from '../lab/ovs/ovs.ts';
import type { OvsLab } from '../lab/ovs/ovs.ts';
import { startSidecars } from '../lab/sidecar.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { succeeds, withTraffic } from './support/traffic.ts';

/** The datapath's cached flows are revalidated within moments; ten times as many under emulation. */
const SETTLE_MS = 3000;
const OBSERVED_MS = 3000;
const FAST_MS = 10_000;

/** What became of a connection that was there when the policy changed, and of one that was made afterwards. */
interface Outcome {
  /** The old one's packets still arrive at the other pod, and the answers at its own. */
  readonly old: { readonly there: boolean; readonly back: boolean };
  readonly fresh: boolean;
}

interface Case {
  readonly name: string;
  readonly proto: Protocol;
  readonly stages: readonly Stage[];
  readonly expected: Outcome;
}

const STAYS: Outcome = { old: { there: true, back: true }, fresh: false };
const BOTH: readonly Stage[] = ['egress', 'ingress'];

const CASES: readonly Case[] = [
  { name: 'TCP, denied at egress', proto: 'tcp', stages: ['egress'], expected: STAYS },
  { name: 'TCP, denied at ingress', proto: 'tcp', stages: ['ingress'], expected: STAYS },
  { name: 'UDP, denied', proto: 'udp', stages: BOTH, expected: STAYS },
  { name: 'SCTP, denied', proto: 'sctp', stages: BOTH, expected: STAYS },
  { name: 'ICMP, denied', proto: 'icmp', stages: BOTH, expected: STAYS },
];

let lab: OvsLab;
let a: Pod;
let b: Pod;
/** Undefined as long as the lab is without XMasq. */
let sidecars: LabSidecars | undefined;
const without = new Map<string, Outcome>();

beforeAll(async () => {
  lab = await up();
  [a, b] = [lab.node(0).pod(0), lab.node(1).pod(0)];
}, 180_000);
afterAll(async () => {
  await sidecars?.down();
  await lab.down();
  expect(residue(lab)).toEqual([]);
});
beforeEach(async () => {
  await lab.policy.clear();
});

describe('without XMasq', () => {
  test.each(CASES)('$name', async (each) => {
    const outcome = await outcomeOf(each);
    expect(outcome).toEqual(each.expected);
    without.set(each.name, outcome);
  });
});

describe('with XMasq, the same', () => {
  beforeAll(async () => {
    sidecars = await startSidecars(lab);
  }, 120_000);

  test.each(CASES)('$name', async (each) => {
    expect(await outcomeOf(each)).toEqual(without.get(each.name));
  });
});

/** Lets a connection begin, changes the policy and looks. */
async function outcomeOf({ proto, stages }: Case): Promise<Outcome> {
  const way = { from: a, to: b, port: freshPort() };
  return withTraffic(lab, proto, way, async () => {
    await begun(proto, way.port);
    await lab.policy.deny({ srcPod: a, dstPod: b, proto }, stages);
    const fresh = await succeeds(lab, proto, { ...way, port: freshPort() });
    await sleep(SETTLE_MS);
    const port = proto === 'icmp' ? undefined : way.port;
    const old = {
      there: await arrives(b, proto, port, 'dst'),
      back: await arrives(a, proto, port, 'src'),
    };
    // It is the fast path that was watched.
    if (old.there && sidecars !== undefined) await sidecars.waitFast(filterOf(proto, port));
    return { old, fresh };
  });
}

/** Waits until the connection is established on both nodes; with XMasq, until it is fast on both. */
async function begun(proto: Protocol, port: number): Promise<void> {
  if (sidecars !== undefined) {
    await sidecars.waitFast(filterOf(proto, proto === 'icmp' ? undefined : port), FAST_MS);
    return;
  }
  for (const { name, conntrack } of lab.nodes) {
    await eventually(`${proto} is established on ${name}`, async () => {
      const entries = await conntrack.list({ zone: ANTREA.zone, proto, ...(proto === 'icmp' ? {} : { dport: port }) });
      return entries.some(({ assured, replied }) => (proto === 'icmp' ? replied : assured));
    });
  }
}

function filterOf(proto: Protocol, port?: number): { proto: Protocol; port?: number } {
  return port === undefined ? { proto } : { proto, port };
}

/** True if packets of the connection arrive at a pod. */
async function arrives(pod: Pod, proto: Protocol, port: number | undefined, end: 'src' | 'dst'): Promise<boolean> {
  const filter = port === undefined ? proto : `${proto} ${end} port ${port}`;
  const capture = await pod.capture({ filter, direction: 'in' });
  await sleep(OBSERVED_MS);
  return (await capture.stop()).packets.length > 0;
}
