import { isNetlinkError } from './errors.ts';
import { parseMessages } from './message.ts';
import type { NetlinkMessage } from './message.ts';
import { NetlinkSocket } from './socket.ts';
import { repeat } from '../util/repeat.ts';

const DEFAULT_INTERVAL_MS = 50;
const DEFAULT_READS_PER_TURN = 1_024;
const DEFAULT_RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024;

/** What every watcher of kernel events can be told, besides the events themselves. */
export interface WatchOptions {
  /**
   * Events were lost because they came faster than they were read: read the table again. At most one call per turn;
   * a caller whose re-read is costly has to space it out itself.
   */
  readonly onOverrun: () => void;
  /**
   * Something was wrong: a message that cannot be decoded or a callback that threw (at most one report per turn, the
   * watch goes on), or the socket failed (`ended` is true: no event will come any more, watch again).
   */
  readonly onError: (error: unknown, ended: boolean) => void;
  /** Time between two looks at the socket, in milliseconds. Default 50. */
  readonly intervalMs?: number;
  /** Datagrams read in one turn of the event loop; the rest waits for the next turn. Default 1024. */
  readonly readsPerTurn?: number;
  /** Receive buffer of the socket, in bytes. Default 4 MiB. */
  readonly receiveBufferBytes?: number;
  /** True to keep the process alive while the watch is open. Default false. */
  readonly keepAlive?: boolean;
}

/** A watch that was started: `close()` ends it, more than once does nothing. */
export interface Watch {
  close(): void;
}

/**
 * Kernel events of some multicast groups, read on a timer.
 *
 * A timer and nonblocking reads, not a waiting thread: a pending wait on a pool thread would keep the process from
 * exiting and take one of its few threads. The timer does not keep the process alive by itself.
 */
export class NetlinkSubscription implements Watch {
  readonly #socket: NetlinkSocket;
  readonly #onMessage: (message: NetlinkMessage) => void;
  readonly #options: WatchOptions;
  readonly #end: () => void;
  readonly #readsPerTurn: number;
  #continuation: NodeJS.Immediate | undefined;

  /**
   * Joins the groups in the network namespace of the calling thread. Events from now on are delivered; read the
   * table after this, so that nothing falls between.
   * @param groups group numbers
   * @param onMessage called for each message, which it must decode at once
   * @throws NetlinkError when the socket or a group is refused
   */
  constructor(
    protocol: number,
    groups: readonly number[],
    onMessage: (message: NetlinkMessage) => void,
    options: WatchOptions,
  ) {
    this.#onMessage = onMessage;
    this.#options = options;
    this.#readsPerTurn = options.readsPerTurn ?? DEFAULT_READS_PER_TURN;
    this.#socket = NetlinkSocket.open(protocol, {
      groups,
      receiveBufferBytes: options.receiveBufferBytes ?? DEFAULT_RECEIVE_BUFFER_BYTES,
    });
    this.#end = repeat(options.intervalMs ?? DEFAULT_INTERVAL_MS, () => this.#turn(), options.keepAlive === true);
  }

  close(): void {
    this.#end();
    clearImmediate(this.#continuation);
    this.#continuation = undefined;
    this.#socket.close();
  }

  /** Reads what is there, up to the bound; with more left it continues in the loop's next turn. */
  #turn(): void {
    clearImmediate(this.#continuation);
    this.#continuation = undefined;
    let overrun = false;
    const failures: unknown[] = [];
    let reads = 0;
    while (reads < this.#readsPerTurn && !this.#socket.closed) {
      reads++;
      let datagram: Buffer | undefined;
      try {
        datagram = this.#socket.receive();
      } catch (error) {
        if (isNetlinkError(error, 'ENOBUFS')) {
          overrun = true;
          continue;
        }
        this.close();
        this.#options.onError(error, true);
        return;
      }
      if (datagram === undefined) break;
      this.#deliver(datagram, failures);
    }
    if (failures.length > 0) this.#options.onError(failures[0], false);
    if (overrun) this.#options.onOverrun();
    if (reads >= this.#readsPerTurn && !this.#socket.closed) {
      // Not unref'ed: the loop would sleep until the timer. It lives as long as the backlog, which is bounded.
      this.#continuation = setImmediate(() => this.#turn());
    }
  }

  #deliver(datagram: Buffer, failures: unknown[]): void {
    try {
      for (const message of parseMessages(datagram)) {
        if (this.#socket.closed) return;
        this.#onMessage(message);
      }
    } catch (error) {
      if (failures.length === 0) failures.push(error);
    }
  }
}
