import { RingBuffer } from '../bpf/ringbuf.ts';
import { eventCodec } from '../gen/layouts.ts';
import { EventType, eventTypeNames, Reason, reasonNames, type Event } from './layout.ts';
import { joinHostPort } from '../util/host-port.ts';
import { SECOND, type Clock, type Log } from './ports.ts';

/** What has to react to events of the programs. */
export interface EventSink {
  wantApproval(event: Event): void;
  reset(event: Event): void;
  /** Name of the peer with that number; undefined: none has it. */
  peerName(id: number): string | undefined;
}

/** Lines of one kind of event per second; the rest is counted. */
const LINES_PER_SECOND = 5;

/** Events worth a line at "warn": something outside XMasq is wrong. */
const WARNINGS: ReadonlySet<number> = new Set([EventType.BLACK_HOLE, EventType.UNKNOWN_PASSED, EventType.OWN_LOST]);

/** Distributes the programs' events and logs them, bounded. */
export class Events {
  readonly #sink: EventSink;
  readonly #log: Log;
  readonly #now: Clock;
  readonly #lines = new Map<number, { second: bigint; count: number }>();
  readonly #counts = new Map<number, number>();
  readonly #listeners = new Set<(event: Event) => void>();

  constructor(sink: EventSink, log: Log, now: Clock) {
    this.#sink = sink;
    this.#log = log;
    this.#now = now;
  }

  /** Events since the start by name. */
  get counts(): ReadonlyMap<string, number> {
    return new Map([...this.#counts].map(([type, count]) => [eventTypeNames[type] ?? String(type), count]));
  }

  /** Reads the ring buffer until closed. @param path of its pin */
  follow(path: string): RingBuffer {
    return new RingBuffer({
      source: { path },
      onRecord: (record) => this.handle(eventCodec.decode(record)),
      onError: (error) => this.#log.warn({ err: error }, 'an event of the programs could not be handled'),
    });
  }

  /** Tells of every event as well, until the returned function is called. @param listener must not throw, nor take long */
  listen(listener: (event: Event) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Handles one event. */
  handle(event: Event): void {
    this.#counts.set(event.type, (this.#counts.get(event.type) ?? 0) + 1);
    if (event.type === EventType.WANT_APPROVAL) this.#sink.wantApproval(event);
    else if (event.type === EventType.RESET) this.#sink.reset(event);
    this.#report(event);
    for (const listener of this.#listeners) listener(event);
  }

  #report(event: Event): void {
    const second = this.#now() / SECOND;
    const line = this.#lines.get(event.type);
    const count = line?.second === second ? line.count + 1 : 1;
    this.#lines.set(event.type, { second, count });
    if (count > LINES_PER_SECOND) return;
    const { flow, reason } = event;
    const fields = {
      event: eventTypeNames[event.type] ?? event.type,
      reason: reasonNames[reason],
      flow: `${flow.proto} ${joinHostPort(flow.saddr, flow.sport)} > ${joinHostPort(flow.daddr, flow.dport)}`,
      peer: event.peer === 0 ? undefined : (this.#sink.peerName(event.peer) ?? event.peer),
      ...(count === LINES_PER_SECOND ? { note: 'more of these in this second are not logged' } : {}),
    };
    if (event.type === EventType.PATH_CHANGED) {
      const masqueraded = reason === Reason.NONE;
      const what = `packets to the peer are ${masqueraded ? 'masqueraded' : 'not masqueraded any more'}`;
      if (masqueraded) this.#log.info(fields, what);
      else this.#log.warn(fields, what);
    } else if (WARNINGS.has(event.type)) this.#log.warn(fields, 'data plane');
    else this.#log.debug(fields, 'data plane');
  }
}
