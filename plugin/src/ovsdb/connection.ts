/** One connection to an OVSDB server: JSON-RPC requests, notifications, and the echo that keeps it alive. */
import { connect, type Socket } from 'node:net';
import { errorMessage } from '../util/errors.ts';
import { ProtocolError, ReplyError } from './errors.ts';
import { Splitter } from './splitter.ts';

/**
 * All that is ever asked for. There is no `transact` and no `lock` among them: the database is Antrea's, and whoever cannot
 * write cannot write by mistake.
 */
export type Method = 'get_schema' | 'monitor' | 'monitor_cond' | 'echo';
const METHODS: ReadonlySet<string> = new Set<Method>(['get_schema', 'monitor', 'monitor_cond', 'echo']);

/** Requests under way at a time; only three are ever needed (schema, monitor, echo). */
const MAX_PENDING = 8;
/** Bytes that the server does not read of us: requests and echo replies are small. */
const MAX_UNSENT = 1024 * 1024;

export interface ConnectionOptions {
  /** Path of the server's Unix socket. */
  readonly socket: string;
  /** Longest message taken, bytes; default 64 MiB. */
  readonly maxMessage?: number;
  /** Milliseconds to connect; default 5000. */
  readonly connectTimeoutMs?: number;
  /** Milliseconds for the reply to a request; default 30000. */
  readonly replyTimeoutMs?: number;
  /** Milliseconds. After twice as long a silence an echo is sent, after four times as long the connection ends. Default 5000. */
  readonly keepAliveMs?: number;
}

/** What the server says unasked, e.g. `update2`. An exception ends the connection. */
export type NotificationHandler = (method: string, params: readonly unknown[]) => void;

interface Pending {
  readonly method: Method;
  readonly take: (result: unknown) => void;
  readonly fail: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

/** An open connection. */
export class OvsdbConnection {
  /** Resolves with the reason when the connection has ended, whoever ended it; never rejects. */
  readonly ended: Promise<Error>;
  readonly #socket: Socket;
  readonly #notify: NotificationHandler;
  readonly #replyTimeoutMs: number;
  readonly #splitter: Splitter;
  readonly #pending = new Map<number, Pending>();
  readonly #resolveEnded: (error: Error) => void;
  readonly #keepAlive: NodeJS.Timeout;
  #nextId = 1;
  /** Keep-alive ticks since the last byte from the server. */
  #silentTicks = 0;
  #open = true;

  private constructor(socket: Socket, options: ConnectionOptions, notify: NotificationHandler) {
    this.#socket = socket;
    this.#notify = notify;
    this.#replyTimeoutMs = options.replyTimeoutMs ?? 30_000;
    this.#splitter = new Splitter(options.maxMessage ?? 64 * 1024 * 1024);
    const { promise, resolve } = Promise.withResolvers<Error>();
    this.ended = promise;
    this.#resolveEnded = resolve;
    this.#keepAlive = setInterval(() => {
      this.#tick();
    }, options.keepAliveMs ?? 5000);
    this.#keepAlive.unref();
    socket.on('data', (chunk: Buffer) => {
      this.#receive(chunk);
    });
    socket.on('error', (error) => {
      this.close(error);
    });
    socket.on('close', () => {
      this.close(new Error('the server closed the connection'));
    });
  }

  /** @throws Error if there is no server, or it does not accept in time */
  static async open(options: ConnectionOptions, notify: NotificationHandler): Promise<OvsdbConnection> {
    const socket = connect(options.socket);
    const timeoutMs = options.connectTimeoutMs ?? 5000;
    return new Promise((resolve, reject) => {
      const refuse = (error: Error): void => {
        clearTimeout(timer);
        socket.destroy();
        reject(error);
      };
      const timer = setTimeout(() => {
        refuse(new Error(`the server did not accept within ${timeoutMs} ms`));
      }, timeoutMs);
      socket.once('error', refuse);
      socket.once('connect', () => {
        clearTimeout(timer);
        socket.off('error', refuse);
        resolve(new OvsdbConnection(socket, options, notify));
      });
    });
  }

  /**
   * Sends a request.
   * @param take turns the result into what is wanted. Runs as soon as the reply is there, before whatever the server sent
   *   after it is looked at; an exception ends the connection
   * @throws ReplyError if the server refuses, else Error when the connection ends or the reply does not come in time
   */
  request<T>(method: Method, params: readonly unknown[], take: (result: unknown) => T): Promise<T> {
    // For callers without types.
    if (!METHODS.has(method)) return Promise.reject(new Error(`${method} is not a request that XMasq sends`));
    if (!this.#open) return Promise.reject(new Error('the connection is closed'));
    if (this.#pending.size >= MAX_PENDING) return Promise.reject(new Error('too many requests without a reply'));
    const id = this.#nextId++;
    return new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.close(new Error(`no reply to ${method} within ${this.#replyTimeoutMs} ms`));
      }, this.#replyTimeoutMs);
      timer.unref();
      const pending: Pending = {
        method,
        take: (result) => {
          resolve(take(result));
        },
        fail: reject,
        timer,
      };
      this.#pending.set(id, pending);
      this.#send({ method, params, id });
    });
  }

  /** Ends the connection; requests without a reply fail with the reason. May be called again. */
  close(reason: Error = new Error('closed')): void {
    if (!this.#open) return;
    this.#open = false;
    clearInterval(this.#keepAlive);
    for (const { fail, timer } of this.#pending.values()) {
      clearTimeout(timer);
      fail(reason);
    }
    this.#pending.clear();
    this.#socket.destroy();
    this.#resolveEnded(reason);
  }

  #send(message: object): void {
    this.#socket.write(JSON.stringify(message));
    if (this.#socket.writableLength > MAX_UNSENT) this.close(new Error('the server does not read what is sent to it'));
  }

  #tick(): void {
    this.#silentTicks++;
    if (this.#silentTicks >= 4) {
      this.close(new Error('the server does not answer'));
    } else if (this.#silentTicks === 2) {
      this.request('echo', [], () => undefined).catch(() => undefined); // Its end is told by close().
    }
  }

  #receive(chunk: Buffer): void {
    this.#silentTicks = 0;
    try {
      for (const message of this.#splitter.push(chunk)) {
        if (!this.#open) return;
        this.#take(message);
      }
    } catch (error) {
      const known = error instanceof ProtocolError;
      this.close(
        known ? error : new ProtocolError(`a message cannot be used: ${errorMessage(error)}`, { cause: error }),
      );
    }
  }

  #take(message: Record<string, unknown>): void {
    const { method, params, id } = message;
    if (method === undefined) {
      this.#takeReply(message);
    } else if (typeof method !== 'string' || !Array.isArray(params)) {
      throw new ProtocolError('a request without a method or parameters');
    } else if (method === 'echo') {
      this.#send({ result: params, error: null, id });
    } else if (id === undefined || id === null) {
      this.#notify(method, params);
    } else {
      this.#send({ result: null, error: 'unknown method', id });
    }
  }

  #takeReply({ id, result, error }: Record<string, unknown>): void {
    const pending = typeof id === 'number' ? this.#pending.get(id) : undefined;
    if (pending === undefined) throw new ProtocolError('a reply to no request');
    this.#pending.delete(id as number);
    clearTimeout(pending.timer);
    if (error !== undefined && error !== null) {
      pending.fail(new ReplyError(pending.method, errorText(error)));
      return;
    }
    try {
      pending.take(result);
    } catch (failure) {
      const reason = failure instanceof Error ? failure : new Error(String(failure));
      pending.fail(reason);
      throw failure;
    }
  }
}

/** Servers say it as text or as an object {error, details}. */
function errorText(error: unknown): string {
  if (typeof error === 'string') return error;
  if (typeof error === 'object' && error !== null) {
    const { error: word, details } = error as { error?: unknown; details?: unknown };
    const parts = [word, details].filter((part) => typeof part === 'string');
    if (parts.length > 0) return parts.join(': ').slice(0, 500);
  }
  return JSON.stringify(error).slice(0, 500);
}
