import { once } from 'node:events';
import {
  status,
  type ServerUnaryCall,
  type ServerWritableStream,
  type UntypedServiceImplementation,
  type sendUnaryData,
} from '@grpc/grpc-js';
import type { xmasq } from '../gen/xmasq.js';
import { errorCode } from '../util/errors.ts';
import type { AdminBackend, FlushTarget } from './backend.ts';
import {
  drainResponse,
  endpointsResponse,
  flushResponse,
  peersResponse,
  statusResponse,
  versionResponse,
  type PodEventsInfo,
} from './convert.ts';
import { RpcError, invalidArgument, toStatus } from './errors.ts';
import { flowRounds } from './flow-rounds.ts';
import { traceLooks } from './trace-looks.ts';

/** Flows and Trace streams and waiting drains at one time. */
const MAX_LONG_CALLS = 16;

type FlowsCall = ServerWritableStream<xmasq.v1.FlowsRequest, xmasq.v1.FlowsResponse>;
type TraceCall = ServerWritableStream<xmasq.v1.TraceRequest, xmasq.v1.TraceResponse>;

/** The Admin service in front of a backend. */
export class AdminService {
  readonly #backend: AdminBackend;
  readonly #podEvents: () => PodEventsInfo;
  readonly #longCalls = new Set<AbortController>();
  #stopping = false;

  /** @param podEvents what the PodEvents service knows of itself */
  constructor(backend: AdminBackend, podEvents: () => PodEventsInfo) {
    this.#backend = backend;
    this.#podEvents = podEvents;
  }

  /** Ends every long call with UNAVAILABLE and takes no more. */
  stop(): void {
    this.#stopping = true;
    for (const call of this.#longCalls) call.abort(stopping());
  }

  /** Method names and handlers, as grpc-js wants them. */
  get handlers(): UntypedServiceImplementation {
    const backend = this.#backend;
    return {
      version: unary(() => versionResponse(backend.version())),
      status: unary(async () => statusResponse(await backend.status(), this.#podEvents())),
      peers: unary(async () => peersResponse(await backend.peers())),
      endpoints: unary(async () => endpointsResponse(await backend.endpoints())),
      flush: unary(async (request: xmasq.v1.FlushRequest) => flushResponse(await backend.flush(flushTarget(request)))),
      drain: unary((request: xmasq.v1.DrainRequest, cancelled) =>
        this.#long(cancelled, async (signal) => drainResponse(await backend.drain({ wait: request.wait, signal }))),
      ),
      undrain: unary(async () => drainResponse(await backend.undrain())),
      flows: (call: FlowsCall) => {
        void this.#stream(call, (signal) => flowRounds(call.request, () => backend.flows(), signal));
      },
      trace: (call: TraceCall) => {
        void this.#stream(call, (signal) => traceLooks(call.request, (flow) => backend.trace(flow), signal));
      },
    };
  }

  /** Answers with a stream of messages, as fast as the client takes them. */
  async #stream<Request, Response>(
    call: ServerWritableStream<Request, Response>,
    answer: (signal: AbortSignal) => AsyncIterable<Response>,
  ): Promise<void> {
    const cancelled = new AbortController();
    call.on('cancelled', () => cancelled.abort(cancelledByClient()));
    call.on('error', (error) => cancelled.abort(error));
    try {
      await this.#long(cancelled.signal, async (signal) => {
        for await (const message of answer(signal)) {
          signal.throwIfAborted();
          if (!call.write(message)) await once(call, 'drain', { signal });
        }
      });
      call.end();
    } catch (error) {
      // Waiting was aborted: what counts is why.
      const reason: unknown = isAbortError(error) ? error.cause : error;
      call.emit('error', toStatus(reason));
    }
  }

  /** Runs a call that may take long, with a signal for both the client's and our own end. */
  async #long<T>(cancelled: AbortSignal, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#stopping) throw stopping();
    if (this.#longCalls.size >= MAX_LONG_CALLS) {
      throw new RpcError(
        status.RESOURCE_EXHAUSTED,
        `${MAX_LONG_CALLS} flow watches, traces or drains are running; end one first`,
      );
    }
    const own = new AbortController();
    this.#longCalls.add(own);
    try {
      return await run(AbortSignal.any([cancelled, own.signal]));
    } finally {
      this.#longCalls.delete(own);
    }
  }
}

/** A handler for a plain request and answer. */
function unary<Request, Response>(
  handle: (request: Request, cancelled: AbortSignal) => Response | Promise<Response>,
): (call: ServerUnaryCall<Request, Response>, reply: sendUnaryData<Response>) => void {
  return (call, reply) => {
    const cancelled = new AbortController();
    call.on('cancelled', () => cancelled.abort(cancelledByClient()));
    const run = async (): Promise<Response> => handle(call.request, cancelled.signal);
    run().then(
      (response) => reply(null, response),
      (error: unknown) => reply(toStatus(error)),
    );
  };
}

function flushTarget(request: xmasq.v1.FlushRequest): FlushTarget {
  const { all, pod, peer } = request;
  if (all === true) return { kind: 'all' };
  if (pod) {
    const { namespace, name } = pod;
    if (!namespace) throw invalidArgument('field pod.namespace is missing; expected the namespace of the pod');
    if (!name) throw invalidArgument('field pod.name is missing; expected the name of the pod');
    return { kind: 'pod', pod: { namespace, name } };
  }
  if (peer) return { kind: 'peer', peer };
  throw invalidArgument('nothing to flush; expected one of: all (true), pod, peer (a node name)');
}

function stopping(): RpcError {
  return new RpcError(status.UNAVAILABLE, 'the sidecar is stopping');
}

function cancelledByClient(): RpcError {
  return new RpcError(status.CANCELLED, 'cancelled by the client');
}

/** An error of Node's own waiting functions after an abort; its cause is the signal's reason. */
function isAbortError(error: unknown): error is { readonly cause: unknown } {
  return errorCode(error) === 'ABORT_ERR' && typeof error === 'object' && error !== null && 'cause' in error;
}
