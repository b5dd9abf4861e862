import { Server, ServerCredentials } from '@grpc/grpc-js';
import { AdminService } from './admin-service.ts';
import type { AdminBackend, PodEventSink } from './backend.ts';
import type { PodEventsInfo } from './convert.ts';
import { PodEventsService } from './pod-events-service.ts';
import { AdminDefinition, PodEventsDefinition } from './services.ts';
import { PrivateSocket } from './unix-socket.ts';

export interface GrpcServerOptions {
  /** Absolute path of the Unix socket. */
  readonly socket: string;
  readonly admin: AdminBackend;
  readonly pods: PodEventSink;
  /** How many pods the node can have: XMASQ_MAX_ENDPOINTS - 1, as endpoint id 0 is never used. */
  readonly maxPods: number;
  /** Milliseconds a PodEvents stream has for its snapshot; default 10 s. */
  readonly snapshotTimeoutMs?: number;
}

/** A snapshot of 1023 pods with longest names is about 600 kB. */
const MAX_MESSAGE = 2 * 1024 * 1024;
/** How long stop() waits for calls that are being answered. */
const STOP_MS = 2000;

/** The sidecar's gRPC services on a Unix socket of mode 0600. */
export class GrpcServer {
  readonly #server: Server;
  readonly #admin: AdminService;
  readonly #pods: PodEventsService;
  readonly #socket: PrivateSocket;

  private constructor(socket: PrivateSocket, options: GrpcServerOptions) {
    this.#socket = socket;
    this.#pods = new PodEventsService(options.pods, options);
    this.#admin = new AdminService(options.admin, () => this.#pods.info);
    this.#server = new Server({
      'grpc.max_receive_message_length': MAX_MESSAGE,
      // 8191 peers with 16 prefixes each; what is sent is our own.
      'grpc.max_send_message_length': 8 * MAX_MESSAGE,
      'grpc.max_concurrent_streams': 32,
      // Finds clients that are stopped (SIGSTOP) but whose socket is open.
      'grpc.keepalive_time_ms': 30_000,
      'grpc.keepalive_timeout_ms': 10_000,
    });
    this.#server.addService(AdminDefinition, this.#admin.handlers);
    this.#server.addService(PodEventsDefinition, { push: this.#pods.push });
  }

  /**
   * Serves. A stale socket is replaced.
   * @throws SocketError the socket is in use or cannot be made
   */
  static async start(options: GrpcServerOptions): Promise<GrpcServer> {
    const socket = await PrivateSocket.prepare(options.socket);
    try {
      const server = new GrpcServer(socket, options);
      await server.#listen();
      return server;
    } catch (error) {
      await socket.remove();
      throw error;
    }
  }

  /** What the PodEvents service has seen. */
  get podEvents(): PodEventsInfo {
    return this.#pods.info;
  }

  /** Takes the socket away, ends streams with UNAVAILABLE, lets other calls finish for up to 2 s. */
  async stop(): Promise<void> {
    await this.#socket.remove();
    this.#pods.stop();
    this.#admin.stop();
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.#server.forceShutdown();
        resolve();
      }, STOP_MS);
      this.#server.tryShutdown(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  async #listen(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.bindAsync(`unix://${this.#socket.bindPath}`, ServerCredentials.createInsecure(), (error) =>
        error === null ? resolve() : reject(error),
      );
    });
    try {
      await this.#socket.publish();
    } catch (error) {
      this.#server.forceShutdown();
      throw error;
    }
  }
}
