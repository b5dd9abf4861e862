import { resolve as resolvePath } from 'node:path';
import { Client, credentials, status, type MethodDefinition, type ServiceError } from '@grpc/grpc-js';
import type { xmasq } from '../gen/xmasq.js';
import { AdminDefinition } from '../grpc/services.ts';
import { probeSocket } from '../grpc/unix-socket.ts';
import { errorMessage } from '../util/errors.ts';
import { CliError, ExitCode, TimeoutError } from './exit.ts';

const MAX_MESSAGE = 32 * 1024 * 1024;

export interface AdminClientOptions {
  readonly socket: string;
  /** Milliseconds for one answer. */
  readonly timeoutMs: number;
  /** Ends calls. */
  readonly stopped: AbortSignal;
}

type UnaryName = Exclude<keyof typeof AdminDefinition, 'flows' | 'trace'>;
type RequestOf<M> = M extends { requestDeserialize: (bytes: never) => infer Request } ? Request : never;
type ResponseOf<M> = M extends { responseDeserialize: (bytes: never) => infer Response } ? Response : never;

/** The Admin service as the command line sees it: every failure is a CliError with its exit code. */
export class AdminClient {
  readonly #client: Client;
  readonly #options: AdminClientOptions;

  private constructor(options: AdminClientOptions, path: string) {
    this.#options = { ...options, socket: path };
    this.#client = new Client(`unix://${path}`, credentials.createInsecure(), {
      'grpc.max_receive_message_length': MAX_MESSAGE,
      'grpc.enable_http_proxy': 0,
    });
  }

  /** @throws CliError UNREACHABLE, with the reason */
  static async connect(options: AdminClientOptions): Promise<AdminClient> {
    const path = resolvePath(options.socket);
    // grpc-js would say UNAVAILABLE only; the error code tells what to do.
    const refusal = await probeSocket(path, options.timeoutMs);
    if (refusal !== undefined) throw new CliError(ExitCode.UNREACHABLE, unreachable(path, refusal));
    return new AdminClient(options, path);
  }

  close(): void {
    this.#client.close();
  }

  /** One request, one answer. @throws CliError */
  call<K extends UnaryName>(
    name: K,
    request: RequestOf<(typeof AdminDefinition)[K]>,
  ): Promise<ResponseOf<(typeof AdminDefinition)[K]>> {
    type Request = RequestOf<(typeof AdminDefinition)[K]>;
    type Response = ResponseOf<(typeof AdminDefinition)[K]>;
    const method = AdminDefinition[name] as unknown as MethodDefinition<Request, Response>;
    const { stopped, timeoutMs } = this.#options;
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        { deadline: Date.now() + timeoutMs },
        (error: ServiceError | null, response?: Response) => {
          stopped.removeEventListener('abort', cancel);
          if (response !== undefined) resolve(response);
          else reject(this.#toCliError(error));
        },
      );
      const cancel = (): void => call.cancel();
      stopped.addEventListener('abort', cancel);
    });
  }

  /**
   * Messages of a Flows call, until the server or the user ends it.
   * @throws CliError
   */
  flows(request: xmasq.v1.FlowsRequest): AsyncGenerator<xmasq.v1.FlowsResponse, void> {
    return this.#stream(AdminDefinition.flows, request, request.watch ? Infinity : 0);
  }

  /**
   * Messages of a Trace call, likewise.
   * @throws CliError
   */
  trace(request: xmasq.v1.TraceRequest): AsyncGenerator<xmasq.v1.TraceResponse, void> {
    return this.#stream(AdminDefinition.trace, request, request.durationMs);
  }

  /** @param lastsMs milliseconds that the answer takes by itself; Infinity: until somebody ends it */
  async *#stream<Request, Response>(
    { path, requestSerialize, responseDeserialize }: MethodDefinition<Request, Response>,
    request: Request,
    lastsMs: number,
  ): AsyncGenerator<Response, void> {
    const { stopped, timeoutMs } = this.#options;
    stopped.throwIfAborted();
    const options = lastsMs === Infinity ? {} : { deadline: Date.now() + lastsMs + timeoutMs };
    const call = this.#client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, request, options);
    const cancel = (): void => call.cancel();
    stopped.addEventListener('abort', cancel);
    try {
      const messages: AsyncIterable<Response> = call;
      for await (const message of messages) yield message;
    } catch (error) {
      if (!stopped.aborted) throw this.#toCliError(error as ServiceError);
    } finally {
      stopped.removeEventListener('abort', cancel);
      call.cancel();
    }
  }

  #toCliError(error: ServiceError | null): CliError {
    const { socket, timeoutMs } = this.#options;
    const details = error === null ? 'empty answer' : error.details || errorMessage(error);
    switch (error?.code) {
      case status.UNAVAILABLE:
        return new CliError(ExitCode.UNREACHABLE, `the sidecar at ${socket} went away: ${details}`);
      case status.DEADLINE_EXCEEDED:
        return new TimeoutError(`the sidecar at ${socket} did not answer within ${timeoutMs / 1000} s; see --timeout`);
      case status.CANCELLED:
        return new CliError(ExitCode.ERROR, 'interrupted');
      case status.INVALID_ARGUMENT:
        return new CliError(ExitCode.USAGE, details);
      case status.UNIMPLEMENTED:
        return new CliError(
          ExitCode.ERROR,
          `the sidecar does not know this command: it is of another version (${details})`,
        );
      case undefined:
      default:
        return new CliError(ExitCode.ERROR, details);
    }
  }
}

function unreachable(path: string, code: string): string {
  const hints: Readonly<Record<string, string>> = {
    ENOENT: 'there is no such socket; is xmasq-agent running on this node? (another path: --socket or XMASQ_SOCKET)',
    ECONNREFUSED: 'nobody serves the socket; xmasq-agent has ended without removing it, or is just starting',
    EACCES: 'permission denied; run this as root',
    ENOTSOCK: 'this is not a socket',
    ETIMEDOUT: 'connecting takes too long; is xmasq-agent stopped or the node overloaded?',
  };
  return `cannot reach the sidecar at ${path}: ${hints[code] ?? code}`;
}
