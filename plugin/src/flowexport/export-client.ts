import { isIP } from 'node:net';
import { checkServerIdentity } from 'node:tls';
import { Client, credentials, type ClientWritableStream, type VerifyOptions } from '@grpc/grpc-js';
import { errorMessage } from '../util/errors.ts';
import { splitHostPort } from '../util/host-port.ts';
import { MessageQueue } from './message-queue.ts';
import { FlowExportDefinition } from './service.ts';
import type { TlsMaterial, TlsProblem } from './tls-material.ts';

/** Own certificate and key may be missing: TLS without a client certificate then. */
export type ClientTls = Pick<TlsMaterial, 'ca'> & Partial<TlsMaterial>;

export interface ExportClientOptions {
  /** `host:port` of a FlowAggregator, or of another server of the same service; IPv6 in brackets. */
  readonly address: string;
  /** Name in the collector's certificate; default: the host. */
  readonly serverName?: string;
  /** Read at every connect, as an agent does; closed by stop(). */
  readonly tls: { readonly current: ClientTls; close?(): void };
  /** Messages kept while the collector is slow or away; default 4096, some 3 MB. */
  readonly queue?: number;
  /** Called with why the collector cannot be reached, and with undefined once it can. */
  readonly onProblem: (problem: TlsProblem | undefined) => void;
  /** Milliseconds before the second attempt; doubles up to a minute; default 1000. */
  readonly backoffMs?: number;
}

/** Sums since the start, and what waits now. */
export interface ExportClientCounts {
  /** Handed over to the connection: the service has no acknowledgements. */
  readonly sent: number;
  /** Too old to wait any longer. */
  readonly dropped: number;
  readonly queued: number;
  readonly connects: number;
  /** Streams that ended, whoever ended them. */
  readonly breaks: number;
}

const MAX_BACKOFF_MS = 60_000;
/** A stream that held for so long was a good one: the next attempt after its end comes soon. */
const STABLE_MS = 10_000;

/** No server has it (RFC 2606), so that one with several certificates shows that of clients without a name. */
const NO_NAME = 'no-name.invalid';

/**
 * How the collector is asked for by name and checked. An address must not be sent as a name (RFC 6066), and @grpc/grpc-js
 * always sends one.
 */
function identity(expected: string): { readonly name: string; readonly verify: VerifyOptions } {
  if (isIP(expected) === 0) return { name: expected, verify: {} };
  return {
    name: NO_NAME,
    verify: { checkServerIdentity: (_name, certificate) => checkServerIdentity(expected, certificate) },
  };
}

/** Sends messages to a collector, one stream as an agent has it: reconnects with back-off, and never holds anything up. */
export class ExportClient {
  readonly #o: ExportClientOptions;
  readonly #queue: MessageQueue;
  readonly #counts = { sent: 0, connects: 0, breaks: 0 };
  #client: Client | undefined;
  #call: ClientWritableStream<Buffer> | undefined;
  #blocked = false;
  #backoffMs: number;
  #retry: NodeJS.Timeout | undefined;
  #stable: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: ExportClientOptions) {
    this.#o = options;
    this.#queue = new MessageQueue(options.queue ?? 4096);
    this.#backoffMs = options.backoffMs ?? 1000;
  }

  get counts(): ExportClientCounts {
    return { ...this.#counts, dropped: this.#queue.dropped, queued: this.#queue.length };
  }

  /** Sends now or later; connects with the first message. */
  send(message: Buffer): void {
    if (this.#stopped) return;
    this.#queue.push(message);
    if (this.#call === undefined && this.#retry === undefined) this.#connect();
    this.#pump();
  }

  /** Ends the stream in order; what waits is lost. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#retry);
    this.#call?.end();
    this.#release();
    this.#o.tls.close?.();
  }

  #connect(): void {
    const { address, serverName, tls } = this.#o;
    this.#counts.connects++;
    try {
      const { ca, cert, key } = tls.current;
      const own = cert === undefined || key === undefined ? [] : [Buffer.from(key), Buffer.from(cert)];
      const { name, verify } = identity(serverName ?? splitHostPort(address).host);
      const [ownKey = null, ownCert = null] = own;
      this.#client = new Client(address, credentials.createSsl(Buffer.from(ca), ownKey, ownCert, verify), {
        'grpc.ssl_target_name_override': name,
        // A connection of another client would keep older certificates alive.
        'grpc.use_local_subchannel_pool': 1,
        'grpc.enable_retries': 0,
        // A megabyte would be taken at once, whether the other side reads it or not.
        'grpc.per_rpc_retry_buffer_size': 0,
        'grpc.keepalive_time_ms': 30_000,
        'grpc.keepalive_timeout_ms': 10_000,
      });
    } catch (error) {
      this.#ended(errorMessage(error));
      return;
    }
    const { path, requestSerialize, responseDeserialize } = FlowExportDefinition.export;
    const call = this.#client.makeClientStreamRequest<Buffer, Buffer>(
      path,
      requestSerialize,
      responseDeserialize,
      (error) => {
        if (this.#call === call) this.#ended(error?.details ?? 'the collector has ended the stream');
      },
    );
    call.on('error', () => undefined);
    call.on('drain', () => {
      this.#blocked = false;
      this.#pump();
    });
    this.#call = call;
    this.#blocked = false;
    this.#stable = setTimeout(() => {
      this.#backoffMs = this.#o.backoffMs ?? 1000;
      this.#o.onProblem(undefined);
    }, STABLE_MS);
    this.#stable.unref();
  }

  #pump(): void {
    while (this.#call !== undefined && !this.#blocked) {
      const message = this.#queue.shift();
      if (message === undefined) return;
      this.#counts.sent++;
      this.#blocked = !this.#call.write(message);
    }
  }

  #ended(why: string): void {
    this.#release();
    this.#counts.breaks++;
    if (this.#stopped) return;
    this.#o.onProblem({
      what: `flow records cannot be exported, they wait and the oldest are dropped: ${why}`,
      where: this.#o.address,
      action: 'check that the collector runs, and that its certificates and those given to the sidecar fit together',
    });
    // Not all nodes at once.
    const pause = this.#backoffMs * (0.8 + Math.random() * 0.4);
    this.#backoffMs = Math.min(this.#backoffMs * 2, MAX_BACKOFF_MS);
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      if (this.#queue.length > 0) this.#connect();
      this.#pump();
    }, pause);
    this.#retry.unref();
  }

  #release(): void {
    clearTimeout(this.#stable);
    const client = this.#client;
    this.#call = undefined;
    this.#client = undefined;
    client?.close();
  }
}
