/** What the looks of a trace come to: what has changed from one to the next, and at the end why. Pure. */
import { xmasq } from '../gen/xmasq.js';
import { reasonName } from '../grpc/reasons.ts';
import { flowText, isFast, keysText, modeText } from './flow-text.ts';
import { growth } from './rates.ts';
import { plain, reasonText } from './reason-texts.ts';
import { enumWord, exclusionText } from './words.ts';

const v1 = xmasq.v1;
const NONE = v1.Reason.REASON_NONE;

type Look = xmasq.v1.TraceResponse.$Properties;
type Flow = xmasq.v1.Flow.$Properties;

/** Something about the flow, as it is now. */
export interface Change {
  /** Since the trace began, milliseconds. */
  readonly timeMs: number;
  /** E.g. `path`, `conntrack`. */
  readonly what: string;
  readonly text: string;
}

/** How long the flow went one way. */
export interface Stay {
  readonly path: 'fast' | 'slow' | 'unknown';
  /** Empty: unknown. */
  readonly mode: string;
  /** Empty: none. */
  readonly reason: string;
  ms: number;
}

/** One cause, with what it means and what to do. */
export interface Cause {
  readonly reason: string;
  readonly meaning: string;
  /** Empty: there is nothing to say. */
  readonly action: string;
}

export interface Explanation {
  /** How the flow goes now. */
  readonly path: Stay['path'];
  readonly mode: string;
  readonly reason: string;
  /** Of the trace. */
  readonly ms: number;
  /** What the pod sent during the trace. */
  readonly fastPackets: number;
  readonly slowPackets: number;
  /** The ways it went, the longest first. */
  readonly stays: readonly Stay[];
  /** Of the present way first. */
  readonly causes: readonly Cause[];
  /** All of it in sentences. */
  readonly text: readonly string[];
}

/** Most ways that are remembered; each is one path, mode and reason, so that there are few. */
const MAX_STAYS = 100;
/** Packet reasons of the node that are told at most. */
const MAX_NODE_REASONS = 5;
/** Ways before the present one that are told at most. */
const MAX_BEFORE = 5;

/** What is said of each look, in this order; an empty text: nothing is to be said of it. */
const ASPECTS: readonly (readonly [what: string, text: (look: Look) => string])[] = [
  ['node', ({ nodeState }) => enumWord(v1.NodeState, 'NODE_STATE_', nodeState ?? 0)],
  ['excluded', ({ exclusions }) => (exclusions ?? []).map(exclusionText).join(', ')],
  ['path', ({ flow }) => pathText(flow ?? undefined)],
  ['keys', ({ flow }) => keysSentence(flow ?? undefined)],
  ['conntrack', ({ conntrack }) => conntrackText(conntrack ?? undefined)],
  ['peer', ({ peer }) => peerText(peer ?? undefined)],
  ['way there', ({ peer }) => wayText(peer?.paths?.[0])],
];

/** Follows the looks of one flow. */
export class TraceStory {
  readonly #said = new Map<string, string>();
  readonly #stays = new Map<string, Stay>();
  #last: Look | undefined;
  #ms = 0;
  #fastPackets = 0;
  #slowPackets = 0;

  /** What is new with this look; at the first one everything that there is to say. */
  look(look: Look): Change[] {
    const timeMs = look.timeMs ?? 0;
    this.#count(look, timeMs);
    const changes = (look.events ?? []).map(({ name, reason, timeMs: at }): Change => ({
      timeMs: at ?? 0,
      what: 'event',
      text: eventText(name ?? '', reason),
    }));
    if ((look.eventsLost ?? 0) > 0) {
      changes.push({ timeMs, what: 'event', text: `${look.eventsLost ?? 0} more, which are not told` });
    }
    for (const [what, textOf] of ASPECTS) {
      const text = textOf(look);
      const before = this.#said.get(what) ?? '';
      if (text === before) continue;
      this.#said.set(what, text);
      changes.push({ timeMs, what, text: text === '' ? 'nothing any more' : text });
    }
    return changes;
  }

  /**
   * Why the flow goes as it does.
   * @param nodeReasons packets of the whole node that were left to the slow path meanwhile, by reason
   */
  explain(nodeReasons: ReadonlyMap<number, number>): Explanation {
    const last = this.#last ?? {};
    const { path, mode, reason } = stayOf(last.flow ?? undefined);
    const stays = [...this.#stays.values()].sort((a, b) => b.ms - a.ms);
    const causes = causesOf(last);
    return {
      ...{ path, mode, reason, stays, causes },
      ms: this.#ms,
      fastPackets: this.#fastPackets,
      slowPackets: this.#slowPackets,
      text: [
        this.#packetsText(),
        ...presentText(last),
        ...causes.flatMap(causeText),
        ...beforeText(stays, last),
        ...this.#packetReasonsText(path, nodeReasons),
        ...otherDirectionText(last),
      ],
    };
  }

  #count(look: Look, timeMs: number): void {
    const before = this.#last;
    this.#last = look;
    this.#ms = timeMs;
    const flow = look.flow ?? undefined;
    const stay = stayOf(before?.flow ?? undefined);
    const key = [stay.path, stay.mode, stay.reason].join();
    const elapsed = before === undefined ? 0 : timeMs - (before.timeMs ?? 0);
    const known = this.#stays.get(key);
    if (known !== undefined) known.ms += elapsed;
    else if (before !== undefined && this.#stays.size < MAX_STAYS) this.#stays.set(key, { ...stay, ms: elapsed });
    // What was sent before the first look is not of this trace.
    if (before === undefined || flow === undefined) return;
    const old = before.flow ?? undefined;
    const renewed = old?.admitted !== flow.admitted;
    this.#fastPackets += growth(old?.txPackets ?? undefined, flow.txPackets ?? 0, renewed);
    this.#slowPackets += growth(old?.slowPackets ?? undefined, flow.slowPackets ?? 0, renewed);
  }

  #packetsText(): string {
    const seconds = (this.#ms / 1000).toFixed(1);
    const all = this.#fastPackets + this.#slowPackets;
    if (all === 0 && this.#last?.flow?.admitted === true) {
      return `In ${seconds} s the pod sent nothing of this flow: trace it while it is at work.`;
    }
    if (all === 0)
      return `In ${seconds} s no packet of this flow was counted: none was sent, or they went slow before that.`;
    const share = ((100 * this.#fastPackets) / all).toFixed(1);
    return `In ${seconds} s the pod sent ${this.#fastPackets} packets fast and ${this.#slowPackets} slow (${share} % fast).`;
  }

  /** Packets that are slow for what they are, or before the flow is looked up, are counted for the node only. */
  #packetReasonsText(path: Stay['path'], nodeReasons: ReadonlyMap<number, number>): string[] {
    const uncounted = this.#fastPackets + this.#slowPackets === 0;
    const wanted = path === 'unknown' || (path === 'fast' ? this.#slowPackets > this.#fastPackets : uncounted);
    return wanted ? packetReasonsText(nodeReasons) : [];
  }
}

/** Which reasons of packets the node counted, with what they mean: for flows that say nothing of themselves. */
export function packetReasonsText(nodeReasons: ReadonlyMap<number, number>): string[] {
  const grown = [...nodeReasons]
    .filter(([code, packets]) => packets > 0 && reasonText(code)?.shownIn.includes('packets') === true)
    .sort(([, a], [, b]) => b - a)
    .slice(0, MAX_NODE_REASONS);
  if (grown.length === 0) return ['No pod of this node has sent a packet by the slow path meanwhile.'];
  return [
    'Of all packets of this node these went slow meanwhile:',
    ...grown.flatMap(([code, packets]) =>
      causeText(causeOf(code)).map((line, i) => (i === 0 ? `  ${packets} ${line}` : `  ${line}`)),
    ),
  ];
}

/** How the flow goes, in a line. */
export function pathText(flow: Flow | undefined): string {
  if (flow === undefined) return 'not known: neither admitted, nor refused of late';
  const reason = reasonName(flow.reason ?? 0);
  const by = flow.approved === true ? ', by approval' : '';
  if (flow.admitted !== true) return `slow, refused: ${reason}`;
  if (!isFast(flow)) return `slow, admitted${by}, but ${flow.blocked === true ? 'blocked' : 'not fast yet'}: ${reason}`;
  return `fast, ${modeText(flow)}${by}${(flow.reason ?? NONE) === NONE ? '' : `, not masqueraded: ${reason}`}`;
}

const KEYS: Readonly<Record<string, string>> = {
  both: 'each node knows the key of the other',
  peer: "the peer's is known; the peer does not know ours",
  own: "the peer knows ours; the peer's is not known",
  sent: 'ours is announced; nothing has come back',
  '': 'none is announced',
};

function keysSentence(flow: Flow | undefined): string {
  if (flow?.admitted !== true || flow.sameNode === true) return '';
  return KEYS[keysText(flow)] ?? '';
}

function conntrackText(conntrack: xmasq.v1.ConntrackVerdict.$Properties | undefined): string {
  if (conntrack === undefined) return 'cannot be asked';
  const reason = conntrack.reason ?? NONE;
  if (!conntrack.detail) return `no entry (${reasonName(reason)})`;
  return `${reason === NONE ? 'allows it' : reasonName(reason)}: ${conntrack.detail}`;
}

function peerText(peer: xmasq.v1.Peer.$Properties | undefined): string {
  if (peer === undefined) return '';
  const declares = peer.capable === true ? 'capable' : 'not capable';
  return `node ${peer.nodeName ?? ''}, ${declares}, ${peer.alive === true ? 'alive' : 'not heard for 5 s'}`;
}

function wayText(path: xmasq.v1.Path.$Properties | undefined): string {
  if (path === undefined) return '';
  const reason = path.reason ?? NONE;
  return `${enumWord(v1.TransmitMode, 'TRANSMIT_MODE_', path.mode ?? 0)}${reason === NONE ? '' : `, not masqueraded: ${reasonName(reason)}`}`;
}

function eventText(name: string, reason: xmasq.v1.Reason | null | undefined): string {
  const why = (reason ?? NONE) === NONE ? '' : `: ${reasonName(reason ?? 0)}`;
  return `${name.replaceAll('_', '-')}${why}`;
}

function stayOf(flow: Flow | undefined): Omit<Stay, 'ms'> {
  if (flow === undefined) return { path: 'unknown', mode: '', reason: '' };
  const reason = (flow.reason ?? NONE) === NONE ? '' : reasonName(flow.reason ?? 0);
  return { path: isFast(flow) ? 'fast' : 'slow', mode: modeText(flow), reason };
}

function causeOf(code: number): Cause {
  const { meaning = '', action = '' } = reasonText(code) ?? {};
  return { reason: reasonName(code), meaning: plain(meaning), action: plain(action) };
}

function causeText({ reason, meaning, action }: Cause): string[] {
  return [
    `${reason}: ${meaning === '' ? 'not known to this version' : meaning}`,
    ...(action === '' ? [] : [`  to do: ${action}`]),
  ];
}

/** Reasons behind which there is what conntrack says now. */
const BY_CONNTRACK: ReadonlySet<number> = new Set([
  v1.Reason.REASON_NO_APPROVAL,
  ...Object.entries(v1.Reason).flatMap(([name, code]) => (name.startsWith('REASON_CT_') ? [code as number] : [])),
]);

/** Reasons of a slow way with which no flow is admitted, nor is it remembered of a flow; with others a flow's packets wake it. */
const BARRED: ReadonlySet<number> = new Set([
  v1.Reason.REASON_PEER_NOT_CAPABLE,
  v1.Reason.REASON_MODE,
  v1.Reason.REASON_DRAINING,
]);

function barred({ flow, peer }: Look): xmasq.v1.Reason {
  const { mode, reason } = peer?.paths?.[0] ?? {};
  const slow = mode === v1.TransmitMode.TRANSMIT_MODE_SLOW;
  return flow?.admitted !== true && slow && BARRED.has(reason ?? NONE) ? (reason ?? NONE) : NONE;
}

/** Why no flow can be; the flow's own reason; what conntrack says, where that is another. */
function causesOf(look: Look): Cause[] {
  const { flow, conntrack } = look;
  const own = flow?.reason ?? NONE;
  // Of an admitted flow conntrack's word is old news within a second.
  const asked = flow == null || (flow.admitted !== true && BY_CONNTRACK.has(own));
  const codes = [barred(look), own, asked ? (conntrack?.reason ?? NONE) : NONE];
  return [...new Set(codes)].filter((code) => code !== NONE).map(causeOf);
}

function presentText({ flow, conntrack, exclusions, nodeState }: Look): string[] {
  const excluded = (exclusions ?? []).map((exclusion) => `Excluded: ${exclusionText(exclusion)}.`);
  const ready = nodeState === v1.NodeState.NODE_STATE_READY;
  const state = ready ? [] : [`The node is ${enumWord(v1.NodeState, 'NODE_STATE_', nodeState ?? 0)}.`];
  return [present(flow ?? undefined, conntrack ?? undefined), ...state, ...excluded];
}

function present(flow: Flow | undefined, conntrack: xmasq.v1.ConntrackVerdict.$Properties | undefined): string {
  if (flow === undefined)
    return 'This node knows nothing of the flow now: it has ended, or no packet of it was looked at.';
  const way = modeText(flow);
  if (isFast(flow)) {
    return (flow.reason ?? NONE) === NONE
      ? `The flow is fast: its packets go by ${way}.`
      : `The flow is fast, by ${way}, but not masqueraded.`;
  }
  if (flow.admitted === true) return 'The flow is slow, though it is admitted.';
  const allowed =
    BY_CONNTRACK.has(flow.reason ?? NONE) && conntrack !== undefined && (conntrack.reason ?? NONE) === NONE;
  return allowed
    ? 'The flow is slow: it was not admitted when it was last looked at. Conntrack allows it now.'
    : 'The flow is slow: it is not admitted.';
}

function beforeText(stays: readonly Stay[], { flow }: Look): string[] {
  const now = stayOf(flow ?? undefined);
  const others = stays.filter(({ path, mode, reason, ms }) => {
    return ms > 0 && (path !== now.path || mode !== now.mode || reason !== now.reason);
  });
  return others.slice(0, MAX_BEFORE).map(({ path, mode, reason, ms }) => {
    const way = path === 'fast' ? `fast by ${mode}` : path === 'slow' ? 'slow' : 'not known';
    return `Before that it was ${way}${reason === '' ? '' : ` (${reason})`} for ${(ms / 1000).toFixed(1)} s.`;
  });
}

function otherDirectionText({ flow, peer }: Look): string[] {
  const name = peer?.nodeName ?? '';
  if (name === '' || flow?.sameNode === true) return [];
  return [`What the other pod sends is admitted by its own node: trace it on ${name}, too.`];
}

/** The first line: which flow it is. @param others flows that would have been meant just as well */
export function headline(flow: Flow, others: number): string {
  const rest =
    others === 0
      ? ''
      : ` (${others} more ${others === 1 ? 'flow matches' : 'flows match'}; narrow it down with --source and --destination)`;
  return `${flowText(flow)}${rest}`;
}
