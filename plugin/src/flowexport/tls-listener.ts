import { constants } from 'node:crypto';
import { isIP, type AddressInfo } from 'node:net';
import { createServer, type SecureContextOptions, type Server, type TLSSocket } from 'node:tls';
import { errorCode } from '../util/errors.ts';
import type { TlsMaterial, TlsSource } from './tls-material.ts';

/** Sums since the start. */
export interface ListenerCounts {
  /** With a certificate that one of the CAs signed. */
  readonly accepted: number;
  /** TLS came about, but no or no valid client certificate. */
  readonly refusedCertificate: number;
  /** No TLS at all, too old, or given up. */
  readonly refusedHandshake: number;
  /** Other than HTTP/2. */
  readonly refusedProtocol: number;
  /** More connections than allowed. */
  readonly refusedLimit: number;
}

export interface TlsListenerOptions {
  /** An address of the loopback device. */
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  readonly tls: TlsSource;
  readonly maxConnections: number;
  readonly onConnection: (socket: TLSSocket) => void;
}

/** A client that has not finished its handshake by then is cut off. */
const HANDSHAKE_MS = 10_000;

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

function context({ ca, cert, key }: TlsMaterial): SecureContextOptions {
  return {
    ca,
    cert,
    key,
    minVersion: 'TLSv1.2',
    // A resumed session would live on after the CA that it was checked by.
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

/** Why a connection whose handshake is over is refused. */
function refusalOf(socket: TLSSocket): 'refusedCertificate' | 'refusedProtocol' | undefined {
  if (!socket.authorized) return 'refusedCertificate';
  return socket.alpnProtocol === 'h2' ? undefined : 'refusedProtocol';
}

/** Accepts connections with mutual TLS on the loopback device. Certificates are replaced without a pause. */
export class TlsListener {
  readonly #server: Server;
  readonly #sockets = new Set<TLSSocket>();
  readonly #counts = { accepted: 0, refusedCertificate: 0, refusedHandshake: 0, refusedProtocol: 0, refusedLimit: 0 };
  readonly #unsubscribe: () => void;

  private constructor({ tls, maxConnections, onConnection }: TlsListenerOptions) {
    this.#server = createServer({
      ...context(tls.current),
      requestCert: true,
      // Whom to refuse is decided in #secured(), where it can be counted.
      rejectUnauthorized: false,
      ALPNProtocols: ['h2'],
      handshakeTimeout: HANDSHAKE_MS,
    });
    this.#server.maxConnections = maxConnections;
    this.#server.on('drop', () => this.#counts.refusedLimit++);
    this.#server.on('tlsClientError', () => this.#counts.refusedHandshake++);
    this.#server.on('secureConnection', (socket) => this.#secured(socket, onConnection));
    this.#unsubscribe = tls.onChange((material) => this.#server.setSecureContext(context(material)));
  }

  /** @throws Error naming the address where it is not one of the loopback device, or cannot be listened on */
  static async start(options: TlsListenerOptions): Promise<TlsListener> {
    const { host, port } = options;
    if (!isLoopback(host)) throw new Error(`flow records are taken on a loopback address only, not on ${host}`);
    const listener = new TlsListener(options);
    try {
      await listener.#listen(host, port);
    } catch (error) {
      listener.#unsubscribe();
      const reason = errorCode(error) ?? String(error);
      throw new Error(`flow records cannot be taken on ${host}, port ${port}: ${reason}`, { cause: error });
    }
    return listener;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get connections(): number {
    return this.#sockets.size;
  }

  get counts(): ListenerCounts {
    return { ...this.#counts };
  }

  /** No new connections. */
  close(): void {
    this.#unsubscribe();
    this.#server.close();
  }

  /** Cuts what is left. */
  destroy(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  #listen(host: string, port: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
  }

  #secured(socket: TLSSocket, onConnection: (socket: TLSSocket) => void): void {
    // Whoever resets the connection is heard of by the HTTP/2 session as well.
    socket.on('error', () => undefined);
    const refusal = refusalOf(socket);
    if (refusal !== undefined) {
      this.#counts[refusal]++;
      socket.destroy();
      return;
    }
    this.#counts.accepted++;
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    onConnection(socket);
  }
}
