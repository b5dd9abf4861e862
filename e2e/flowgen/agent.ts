/** Plays antrea-agent's FlowExporter towards a collector. */
import { checkServerIdentity } from 'node:tls';
import { Client, credentials, type ClientWritableStream } from '@grpc/grpc-js';
import { FlowExportDefinition } from '../../plugin/src/flowexport/service.ts';
import type { TlsMaterial } from '../../plugin/src/flowexport/tls-material.ts';

export interface AgentOptions {
  /** Of the collector. */
  readonly host?: string;
  readonly port: number;
  /** Certificates of the agent; without `cert` it has none of its own; undefined: no TLS at all. */
  readonly tls: (Pick<TlsMaterial, 'ca'> & Partial<TlsMaterial>) | undefined;
}

function channelCredentials(host: string, tls: AgentOptions['tls']): ReturnType<typeof credentials.createInsecure> {
  if (tls === undefined) return credentials.createInsecure();
  const { ca, cert, key } = tls;
  const own = [key, cert].map((text) => (text === undefined ? null : Buffer.from(text))) as [
    Buffer | null,
    Buffer | null,
  ];
  // The name below must not change whose certificate is good.
  return credentials.createSsl(Buffer.from(ca), ...own, {
    checkServerIdentity: (_name, certificate) => checkServerIdentity(host, certificate),
  });
}

/** One connection to the collector; as many streams on it as one likes (an agent has one). */
export class FlowAgent {
  readonly #client: Client;

  constructor({ host = '127.0.0.1', port, tls }: AgentOptions) {
    const target = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
    this.#client = new Client(target, channelCredentials(host, tls), {
      // Agents in one process would share a connection.
      'grpc.use_local_subchannel_pool': 1,
      // An agent sends no name for an address; @grpc/grpc-js would send the address, against RFC 6066.
      ...(tls === undefined ? {} : { 'grpc.ssl_target_name_override': 'localhost' }),
      'grpc.enable_retries': 0,
      // A megabyte would be taken at once, whether the other side reads it or not.
      'grpc.per_rpc_retry_buffer_size': 0,
    });
  }

  open(): FlowStream {
    return new FlowStream(this.#client);
  }

  close(): void {
    this.#client.close();
  }
}

/** One stream of records. */
export class FlowStream {
  readonly #call: ClientWritableStream<Buffer>;
  /** How the call ended: a gRPC status code and its details; never rejects. */
  readonly ended: Promise<{ readonly code: number; readonly details: string }>;
  #over = false;

  constructor(client: Client) {
    const { path, requestSerialize, responseDeserialize } = FlowExportDefinition.export;
    let end: (result: { code: number; details: string }) => void;
    this.ended = new Promise((resolve) => (end = resolve));
    this.#call = client.makeClientStreamRequest<Buffer, Buffer>(
      path,
      requestSerialize,
      responseDeserialize,
      (error) => {
        this.#over = true;
        end({ code: error?.code ?? 0, details: error?.details ?? '' });
        // Wakes a send() that waits for room.
        this.#call.emit('drain');
      },
    );
    this.#call.on('error', () => undefined);
  }

  /** Sends a message; resolves when there is room for the next one. @returns false where the stream has ended */
  async send(message: Buffer): Promise<boolean> {
    if (this.#over) return false;
    if (!this.#call.write(message)) await new Promise<void>((resolve) => void this.#call.once('drain', resolve));
    return !this.#isOver();
  }

  /** Ends the stream in order, as agents never do. */
  async end(): Promise<{ readonly code: number; readonly details: string }> {
    this.#call.end();
    return this.ended;
  }

  cancel(): void {
    this.#call.cancel();
  }

  #isOver(): boolean {
    return this.#over;
  }
}
