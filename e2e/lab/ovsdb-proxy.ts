/** Stands between a client and a database and writes down what is asked for. */
import { rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { Splitter } from '../../plugin/src/ovsdb/splitter.ts';

const MAX_MESSAGE = 64 * 1024 * 1024;
/** Messages kept. */
const MAX_KEPT = 10_000;

/** A Unix socket that passes everything on to another one. */
export class RecordingProxy {
  /** What clients have sent, in order; the first 10,000. */
  readonly sent: Record<string, unknown>[] = [];
  readonly #path: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(path: string, target: string) {
    this.#path = path;
    this.#server = createServer((client) => {
      this.#join(client, connect(target));
    });
  }

  /** @param path where clients connect; @param target the database's own socket */
  static async listen(path: string, target: string): Promise<RecordingProxy> {
    const proxy = new RecordingProxy(path, target);
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once('error', reject);
      proxy.#server.listen(path, resolve);
    });
    return proxy;
  }

  /** Distinct methods of the requests, sorted. */
  get methods(): string[] {
    const methods = this.sent.flatMap(({ method }) => (typeof method === 'string' ? [method] : []));
    return [...new Set(methods)].sort();
  }

  /** Ends all connections and serves no more. */
  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
    rmSync(this.#path, { force: true });
  }

  #join(client: Socket, server: Socket): void {
    const splitter = new Splitter(MAX_MESSAGE);
    client.on('data', (chunk: Buffer) => {
      for (const message of splitter.push(chunk)) if (this.sent.length < MAX_KEPT) this.sent.push(message);
    });
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#sockets.add(from);
      from.pipe(to);
      from.on('error', () => undefined);
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
    }
  }
}
