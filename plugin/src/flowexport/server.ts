import {
  Server,
  ServerCredentials,
  status,
  type ConnectionInjector,
  type sendUnaryData,
  type ServerReadableStream,
} from '@grpc/grpc-js';
import { decodeExport, type OnFlow } from './decode.ts';
import { Intake } from './intake.ts';
import { NamesCache } from './names-cache.ts';
import { EXPORT_RESPONSE, FlowExportDefinition } from './service.ts';
import { TlsListener, type ListenerCounts } from './tls-listener.ts';
import type { TlsSource } from './tls-material.ts';

export interface FlowExportServerOptions {
  /** An address of the loopback device; default 127.0.0.1. */
  readonly host?: string;
  /** 0: any free one. */
  readonly port: number;
  readonly tls: TlsSource;
  /** Called for every flow that could be read. @throws nothing */
  readonly onFlow: OnFlow;
  /** Default 256. */
  readonly maxStreams?: number;
  /** Default 128. */
  readonly maxConnections?: number;
}

/** Sums since the start. */
export interface ServerCounts extends ListenerCounts {
  readonly streams: number;
  /** More streams than allowed. */
  readonly refusedStreams: number;
  readonly messages: number;
  readonly flows: number;
  /** Flows that make no sense, and messages that are no protobuf. */
  readonly malformed: number;
  /** Times that a stream had to wait for others. */
  readonly pauses: number;
}

/** An agent sends one flow of less than 2 kB at a time. */
const MAX_MESSAGE = 1024 * 1024;
/** Megabytes that one connection may hold. */
const MAX_SESSION_MB = 4;
/** How long stop() waits for clients to close. */
const STOP_MS = 1000;

type Call = ServerReadableStream<Buffer, Buffer>;

/**
 * Antrea's `FlowExportService` on a loopback TCP port with mutual TLS. What cannot be read is counted and skipped, and never
 * ends a stream: an agent would send the same again after its reconnect.
 */
export class FlowExportServer {
  readonly #onFlow: OnFlow;
  readonly #maxStreams: number;
  readonly #names = new NamesCache();
  readonly #intake = new Intake();
  readonly #calls = new Map<Call, sendUnaryData<Buffer>>();
  readonly #counts = { streams: 0, refusedStreams: 0, messages: 0, flows: 0, malformed: 0 };
  readonly #server: Server;
  readonly #injector: ConnectionInjector;
  #listener: TlsListener | undefined;

  private constructor({ onFlow, maxStreams = 256 }: FlowExportServerOptions) {
    this.#onFlow = (record, raw) => {
      this.#counts.flows++;
      onFlow(record, raw);
    };
    this.#maxStreams = maxStreams;
    this.#server = new Server({
      'grpc.max_receive_message_length': MAX_MESSAGE,
      'grpc.max_send_message_length': 1024,
      'grpc.max_concurrent_streams': maxStreams,
      'grpc-node.max_session_memory': MAX_SESSION_MB,
      // Finds agents that are gone without a word. A healthy one may be silent for hours.
      'grpc.keepalive_time_ms': 30_000,
      'grpc.keepalive_timeout_ms': 10_000,
      'grpc.enable_channelz': 0,
    });
    this.#server.addService(FlowExportDefinition, {
      export: (call: Call, callback: sendUnaryData<Buffer>) => this.#export(call, callback),
    });
    // TLS is the listener's: it counts whom it refuses, and replaces certificates.
    this.#injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
  }

  /** @throws Error naming the address where it cannot be listened on */
  static async start(options: FlowExportServerOptions): Promise<FlowExportServer> {
    const { host = '127.0.0.1', port, tls, maxConnections = 128 } = options;
    const server = new FlowExportServer(options);
    server.#listener = await TlsListener.start({
      host,
      port,
      tls,
      maxConnections,
      onConnection: (socket) => server.#injector.injectConnection(socket),
    });
    return server;
  }

  get port(): number {
    return this.#listening.port;
  }

  /** Open now. */
  get open(): { readonly connections: number; readonly streams: number } {
    return { connections: this.#listening.connections, streams: this.#calls.size };
  }

  get counts(): ServerCounts {
    return { ...this.#listening.counts, ...this.#counts, pauses: this.#intake.pauses };
  }

  /** Ends streams with UNAVAILABLE: agents come back one active timeout later. */
  async stop(): Promise<void> {
    const listener = this.#listening;
    listener.close();
    for (const callback of this.#calls.values()) {
      callback({ code: status.UNAVAILABLE, details: 'the sidecar is stopping' });
    }
    this.#injector.destroy();
    const until = Date.now() + STOP_MS;
    while (listener.connections > 0 && Date.now() < until) {
      await new Promise<void>((resolve) => void setTimeout(resolve, 10));
    }
    listener.destroy();
    this.#server.forceShutdown();
  }

  get #listening(): TlsListener {
    if (this.#listener === undefined) throw new Error('the server has not started');
    return this.#listener;
  }

  #export(call: Call, callback: sendUnaryData<Buffer>): void {
    if (this.#calls.size >= this.#maxStreams) {
      this.#counts.refusedStreams++;
      callback({ code: status.RESOURCE_EXHAUSTED, details: `${this.#maxStreams} streams are open already` });
      return;
    }
    this.#counts.streams++;
    this.#calls.set(call, callback);
    const done = (): void => {
      this.#calls.delete(call);
      this.#intake.forget(call);
    };
    call.on('data', (message: Buffer) => {
      this.#counts.messages++;
      this.#counts.malformed += decodeExport(message, this.#names, this.#onFlow);
      this.#intake.count(call);
    });
    call.once('end', () => {
      done();
      callback(null, EXPORT_RESPONSE);
    });
    call.once('cancelled', done);
    call.once('close', done);
    call.on('error', done);
  }
}
