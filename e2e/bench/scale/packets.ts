/**
 * What a packet of the fast path costs with so many flows and peers: the real programs on real maps, by BPF_PROG_TEST_RUN. The
 * entries are copies of those that the programs make for a connection; each counts as looked at within the last moment, so
 * that what is done once a while for a flow (conntrack, the next hop) plays no part.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeCodec } from '../../../plugin/src/bpf/codec.ts';
import type { Codec } from '../../../plugin/src/bpf/codec.ts';
import { check } from '../../../plugin/src/bpf/errors.ts';
import { libbpf } from '../../../plugin/src/bpf/libbpf.ts';
import { ArrayMap } from '../../../plugin/src/bpf/map.ts';
import { BpfObject } from '../../../plugin/src/bpf/object.ts';
import { testRun } from '../../../plugin/src/bpf/testrun.ts';
import { counterNames, DestKind, maps, PeerFlag } from '../../../plugin/src/gen/layouts.ts';
import { compileBpf } from '../../../plugin/test/prog/compile.ts';
import { Bench, NODE, OBJECT, ROOT, SEC, Verdict, now, prefix } from '../../../plugin/test/prog/harness.ts';
import type { Established, Node } from '../../../plugin/test/prog/harness.ts';
import { buildFrame, parseFrame } from '../../../plugin/test/prog/packets.ts';
import { LabError } from '../../lab/errors.ts';
import { PORTS, counting, entriesOf, flowOf, peerOf } from './flows.ts';
import type { Pattern } from './flows.ts';

/** The programs that are measured. */
export const PROGRAMS = ['pod_egress', 'uplink_ingress'] as const;
export type Program = (typeof PROGRAMS)[number];

/** Entries in the maps. */
export interface Population {
  readonly flows: number;
  readonly peers: number;
}

/** What the maps of a population cost. */
export interface Filling {
  /** In the kernel, for all entries of both maps. */
  readonly seconds: number;
  /** `memlock` of /proc/self/fdinfo of both maps. */
  readonly bytes: number;
}

/** One measurement. */
export interface Sample {
  readonly ns: number;
  /** The flows took too long to have their turn: they counted as idle, and each packet had its flow looked at anew. */
  readonly late: boolean;
}

/**
 * At most so many flows take turns at uplink_ingress, evenly chosen: they must be through while each counts as busy
 * (XMASQ_VERIFY_NS, 100 ms, since its last packet). For pod_egress the entries say themselves when they are looked at.
 */
const MOST_IN_TURN = 50_000;
const LONGEST_TURN_MS = 80;
/** Samples in which it took longer, as the machine did something else, are taken anew so often. */
const ATTEMPTS = 3;
/** Entries per batch call. */
const BATCH = 512;
/** Later than any measurement ends. */
const LATER = 3600n * SEC;
/** As in the shipped object: twice as many slots as flows. */
const SLOTS_PER_FLOW = 2;
/** Flows whose packets are looked at byte by byte before anything is measured. */
const LOOKED_AT = 100;
/** Of every packet. */
const PAYLOAD = Buffer.alloc(64, 0xa5);
/** Ethernet, IPv4 and TCP without options, bytes. */
const HEADERS = 54;

interface Drive {
  readonly next: number;
  readonly rotated: number;
  readonly step: number;
  readonly peers: number;
  readonly firstPeer: number;
  readonly peerStep: number;
  readonly incoming: boolean;
  readonly target: 0 | 1;
  readonly headers: Buffer;
}

/** struct drive of driver.bpf.c. */
const driveCodec: Codec<Drive> = makeCodec<Drive>(
  'drive',
  100,
  (to, at, value) => {
    const { next, rotated, step, peers, firstPeer, peerStep } = value;
    const ports = [PORTS.firstLocal, PORTS.firstRemote, PORTS.locals];
    const words = [next, rotated, step, peers, firstPeer, peerStep, ...ports, value.incoming ? 1 : 0, value.target];
    words.forEach((word, index) => to.writeUInt32LE(word, at + 4 * index));
    value.headers.copy(to, at + 4 * words.length, 0, HEADERS);
  },
  () => {
    throw new Error('drive is only written');
  },
);

/** Compiles the driver below build/. @returns the object's path */
export function compileDriver(): Promise<string> {
  const directory = join(ROOT, 'build/bench-scale');
  mkdirSync(directory, { recursive: true });
  return compileBpf(join(import.meta.dirname, 'driver.bpf.c'), join(directory, 'driver.bpf.o'));
}

/** The data plane with a population of flows. */
export class Crowd {
  readonly population: Population;
  readonly filling: Filling;
  readonly #bench: Bench;
  readonly #driver: BpfObject;
  readonly #drives: ArrayMap<Drive>;
  readonly #template: Established;
  readonly #mostInTurn: number;
  #next = 0;

  /**
   * Loads the programs and fills the maps.
   * @param driver from compileDriver
   * @param mostInTurn fewer on a slower machine
   */
  constructor(node: Node, driver: string, population: Population, mostInTurn = MOST_IN_TURN) {
    const { flows } = population;
    this.population = population;
    this.#mostInTurn = mostInTurn;
    // One more for the pattern.
    this.#bench = new Bench(node, OBJECT, { flows: flows + 1, slots: SLOTS_PER_FLOW * (flows + 1) });
    const undo: (() => void)[] = [() => this.#bench.close()];
    try {
      this.#driver = BpfObject.open(driver);
      undo.push(() => this.#driver.close());
      this.#driver.load();
      this.#drives = new ArrayMap({ fd: this.#driver.mapFd('drives') }, driveCodec);
      undo.push(() => this.#drives.close());
      this.#setTarget(0, this.#driver.program('nothing').fd);
      this.#addPeers();
      this.#template = this.#bench.establish({ kind: 'tcp' });
      const seconds = this.#fill(this.#pattern());
      const bytes = (['flows', 'slots'] as const).reduce((sum, map) => sum + memlock(this.#bench.object.mapFd(map)), 0);
      this.filling = { seconds, bytes };
      this.#look();
    } catch (error) {
      for (const each of undo.toReversed()) each();
      throw error;
    }
  }

  close(): void {
    this.#drives.close();
    this.#driver.close();
    this.#bench.close();
  }

  /**
   * What the program takes for a packet, without what it costs to make the packet.
   * @param packets runs of the program
   * @throws LabError where a packet was not fast
   */
  sample(program: Program, packets: number): Sample {
    const rotated = this.#inTurn(program);
    for (let attempt = 1; ; attempt++) {
      this.#setTarget(1, this.#bench.fd(program));
      const counter = program === 'pod_egress' ? 'fast_tx' : 'restored';
      // Not counted: all that take turns have just had a packet, or so many that caches are as they will be.
      this.#drive(program, 1, Math.min(rotated, this.#mostInTurn));
      const before = this.#count(counter);
      const begin = performance.now();
      const taken = this.#drive(program, 1, packets);
      const turnMs = ((performance.now() - begin) / packets) * rotated;
      const fast = this.#count(counter) - before;
      if (fast !== packets) throw new LabError(`${program}: ${fast} of ${packets} packets were fast`);
      const driving = this.#drive(program, 0, packets);
      const late = program === 'uplink_ingress' && turnMs > LONGEST_TURN_MS;
      if (!late || attempt === ATTEMPTS) return { ns: taken - driving, late };
    }
  }

  /** Flows that take turns. */
  #inTurn(program: Program): number {
    const { flows } = this.population;
    return program === 'pod_egress' ? flows : Math.min(flows, this.#mostInTurn);
  }

  #count(counter: 'fast_tx' | 'restored'): number {
    const index = Object.values<string>(counterNames).indexOf(counter);
    return Number(this.#bench.tables.counters.sums(index)[0]);
  }

  /** Runs the driver. @returns nanoseconds per packet */
  #drive(program: Program, target: 0 | 1, packets: number): number {
    const { flows, peers } = this.population;
    const incoming = program === 'uplink_ingress';
    const rotated = this.#inTurn(program);
    const { first, step: peerStep } = counting(incoming ? 'nodes' : 'pods');
    const frame = this.#frame(program, 0);
    this.#drives.set(0, {
      ...{ next: this.#next, rotated, step: Math.floor(flows / rotated), peers, firstPeer: first, peerStep },
      ...{ incoming, target, headers: frame.subarray(0, HEADERS) },
    });
    this.#next = (this.#next + packets) % 2 ** 32;
    const { fd } = this.#driver.program('drive');
    const ifindex = incoming ? this.#bench.node.ifindex.uplink : this.#bench.node.ifindex.pod;
    const { durationNs, retval } = testRun(fd, { data: frame, ctx: { ifindex }, repeat: packets });
    const expected = target === 0 ? Verdict.pass : Verdict.redirect;
    if (retval !== expected) throw new LabError(`${program} returned ${retval}, not ${expected}`);
    return durationNs;
  }

  #setTarget(index: 0 | 1, program: number): void {
    const [key, value] = [Buffer.alloc(4), Buffer.alloc(4)];
    key.writeUInt32LE(index);
    value.writeUInt32LE(program);
    check('set a target of the driver', libbpf().bpf_map_update_elem(this.#driver.mapFd('targets'), key, value, 0));
  }

  #addPeers(): void {
    const { tables } = this.#bench;
    for (let n = 0; n < this.population.peers; n++) {
      const { id, epoch, address, pod } = peerOf(n);
      tables.peers.set(id, { addr4: address, addr6: '', flags: PeerFlag.PRESENT | PeerFlag.CAPABLE, epoch });
      tables.peerByAddr.set(address, id);
      this.#bench.heard({ id }, now());
      tables.destinations.set(prefix(pod.replace(/[0-9]+$/, '0'), 24), { kind: DestKind.PEER, peer: id });
    }
  }

  /** Entries of a flow that is fast both ways, taken out of the maps. */
  #pattern(): Pattern {
    const bench = this.#bench;
    const { talk, flowKey, slotKey, idIn } = this.#template;
    bench.heard(talk.peer, now());
    const sent = bench.run('pod_egress', talk.sent());
    if (sent.counters.fast_tx !== 1) throw new LabError(`the pattern is not fast: ${JSON.stringify(sent.reasons)}`);
    const received = bench.run('uplink_ingress', talk.masqueraded({ id: idIn }));
    if (received.counters.restored !== 1) throw new LabError('the pattern is not restored');
    const [flow, slot] = [bench.flow(flowKey), bench.slot(slotKey)];
    if (flow === undefined || slot === undefined) throw new LabError('the pattern has gone');
    bench.tables.flows.delete(flowKey);
    bench.tables.slots.delete(slotKey);
    const later = now() + LATER;
    return {
      ...{ flowKey, slotKey },
      flow: { ...flow, verifyAt: later, recheckAt: later },
      slot: { ...slot, recheckAt: later, ackAt: later },
    };
  }

  /** @returns seconds in the kernel */
  #fill(pattern: Pattern): number {
    const { flows, peers } = this.population;
    let seconds = 0;
    for (let begin = 0; begin < flows; begin += BATCH) {
      const length = Math.min(BATCH, flows - begin);
      const entries = Array.from({ length }, (_, i) => entriesOf(pattern, begin + i, peers));
      const concat = <T>(codec: Codec<T>, of: (entry: Pattern) => T): Buffer =>
        Buffer.concat(entries.map((entry) => codec.encode(of(entry))));
      const { flows: flowsLayout, slots: slotsLayout } = maps;
      const batches = [
        ['flows', concat(flowsLayout.key, ({ flowKey }) => flowKey), concat(flowsLayout.value, ({ flow }) => flow)],
        ['slots', concat(slotsLayout.key, ({ slotKey }) => slotKey), concat(slotsLayout.value, ({ slot }) => slot)],
      ] as const;
      for (const [map, keys, values] of batches) {
        const count = Buffer.alloc(4);
        count.writeUInt32LE(length);
        const start = performance.now();
        const rc = libbpf().bpf_map_update_batch(this.#bench.object.mapFd(map), keys, values, count, null);
        seconds += (performance.now() - start) / 1000;
        check(`fill map ${map}`, rc);
      }
    }
    return seconds;
  }

  /** What a packet of a flow looks like before the program. */
  #frame(program: Program, i: number): Buffer {
    const { peer, local, remote } = flowOf(i, this.population.peers);
    const { talk, idIn } = this.#template;
    const payload = PAYLOAD;
    if (program === 'pod_egress') {
      const l4 = { sport: local, dport: remote, payload };
      return talk.sent({ dst: peer.pod, l4 });
    }
    return talk.masqueraded({ src: peer.address, id: idIn, l4: { sport: remote, dport: local, payload } });
  }

  /** Some packets of this population come out as they must. @throws LabError */
  #look(): void {
    const { flows, peers } = this.population;
    const { talk, idOut } = this.#template;
    for (let n = 0; n < Math.min(flows, LOOKED_AT); n++) {
      const i = Math.floor((n * flows) / LOOKED_AT) % flows;
      const { peer, local, remote } = flowOf(i, peers);
      const sent = this.#bench.run('pod_egress', this.#frame('pod_egress', i));
      const wanted = parseFrame(
        buildFrame({
          ...{ dmac: talk.peer.mac, smac: NODE.mac, src: NODE.addr, dst: peer.address, id: idOut },
          transport: { kind: 'tcp', sport: local, dport: remote, payload: PAYLOAD },
        }),
      );
      compare(`sent ${i}`, sent.parsed, wanted);
      const got = this.#bench.run('uplink_ingress', this.#frame('uplink_ingress', i));
      const before = talk.delivered({ src: peer.pod, id: 0, l4: { sport: remote, dport: local, payload: PAYLOAD } });
      compare(`received ${i}`, got.parsed, parseFrame(before));
    }
  }
}

/** @throws LabError where two frames differ */
function compare(what: string, got: unknown, wanted: unknown): void {
  const [left, right] = [JSON.stringify(got), JSON.stringify(wanted)];
  if (left !== right) throw new LabError(`flow ${what}: the program wrote ${left}, not ${right}`);
}

/** Bytes that the kernel says a map takes. */
function memlock(fd: number): number {
  const bytes = Number(/^memlock:\s+(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1]);
  if (Number.isNaN(bytes)) throw new LabError(`the kernel does not tell the memory of map descriptor ${fd}`);
  return bytes;
}
