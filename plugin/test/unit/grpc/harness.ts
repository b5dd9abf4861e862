import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  Client,
  credentials,
  makeGenericClientConstructor,
  status,
  type ClientReadableStream,
  type ClientWritableStream,
  type ServiceError,
} from '@grpc/grpc-js';
import { xmasq } from '../../../src/gen/xmasq.js';
import { GrpcServer } from '../../../src/grpc/server.ts';
import { AdminDefinition, PodEventsDefinition } from '../../../src/grpc/services.ts';
import { FakeBackend, FakeSink } from './fake-backend.ts';

const AnyClient = makeGenericClientConstructor({ ...AdminDefinition, ...PodEventsDefinition }, 'xmasq');

/** A real server on a temporary socket, with fakes behind it. */
export interface Harness {
  readonly directory: string;
  readonly socket: string;
  readonly server: GrpcServer;
  readonly backend: FakeBackend;
  readonly sink: FakeSink;
  connect(): TestClient;
  close(): Promise<void>;
}

export async function startHarness(snapshotTimeoutMs = 2000): Promise<Harness> {
  const directory = await mkdtemp(join(tmpdir(), 'xm-'));
  const socket = join(directory, 'run', 'xmasq.sock');
  const backend = new FakeBackend();
  const sink = new FakeSink();
  const server = await GrpcServer.start({ socket, admin: backend, pods: sink, maxPods: 3, snapshotTimeoutMs });
  const clients: TestClient[] = [];
  return {
    directory,
    socket,
    server,
    backend,
    sink,
    connect() {
      const client = new TestClient(socket);
      clients.push(client);
      return client;
    },
    async close() {
      for (const client of clients) client.close();
      await server.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** What a call came to: an answer or a status. */
export interface Outcome<T> {
  readonly code: status;
  readonly details: string;
  readonly response?: T;
}

type PushStream = ClientWritableStream<xmasq.v1.PodEvent>;

export class TestClient {
  readonly #client: Client;

  constructor(socket: string) {
    this.#client = new AnyClient(`unix://${socket}`, credentials.createInsecure());
  }

  close(): void {
    this.#client.close();
  }

  /** Opens a PodEvents stream. */
  push(): PushHandle {
    const { path, requestSerialize, responseDeserialize } = PodEventsDefinition.push;
    let stream: PushStream | undefined;
    const outcome = new Promise<Outcome<xmasq.v1.PodEventsSummary>>((resolve) => {
      stream = this.#client.makeClientStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        (error: ServiceError | null, response?: xmasq.v1.PodEventsSummary) => resolve(toOutcome(error, response)),
      );
    });
    if (stream === undefined) throw new Error('no stream');
    return new PushHandle(stream, outcome);
  }

  /** A unary Admin call. */
  call<K extends Exclude<keyof typeof AdminDefinition, 'flows' | 'trace'>>(
    name: K,
    request: Parameters<(typeof AdminDefinition)[K]['requestSerialize']>[0],
    deadlineMs = 5000,
  ): Promise<Outcome<ReturnType<(typeof AdminDefinition)[K]['responseDeserialize']>>> {
    type Response = ReturnType<(typeof AdminDefinition)[K]['responseDeserialize']>;
    const { path, requestSerialize, responseDeserialize } = AdminDefinition[name];
    return new Promise((resolve) => {
      this.#client.makeUnaryRequest(
        path,
        requestSerialize as (value: unknown) => Buffer,
        responseDeserialize as (bytes: Buffer) => Response,
        request,
        { deadline: Date.now() + deadlineMs },
        (error: ServiceError | null, response?: Response) => resolve(toOutcome(error, response)),
      );
    });
  }

  flows(request: xmasq.v1.FlowsRequest.$Properties): ClientReadableStream<xmasq.v1.FlowsResponse> {
    const { path, requestSerialize, responseDeserialize } = AdminDefinition.flows;
    return this.#client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      new xmasq.v1.FlowsRequest(request),
    );
  }

  /** All messages of a Flows call that ends by itself. */
  allFlows(request: xmasq.v1.FlowsRequest.$Properties): Promise<Outcome<xmasq.v1.FlowsResponse[]>> {
    return all<xmasq.v1.FlowsResponse>(this.flows(request));
  }

  traces(request: xmasq.v1.TraceRequest.$Properties): ClientReadableStream<xmasq.v1.TraceResponse> {
    const { path, requestSerialize, responseDeserialize } = AdminDefinition.trace;
    return this.#client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      new xmasq.v1.TraceRequest(request),
    );
  }

  /** All messages of a Trace call. */
  allTraces(request: xmasq.v1.TraceRequest.$Properties): Promise<Outcome<xmasq.v1.TraceResponse[]>> {
    return all<xmasq.v1.TraceResponse>(this.traces(request));
  }
}

/** All messages of a stream until its end, and how it ended. */
async function all<T>(stream: AsyncIterable<T>): Promise<Outcome<T[]>> {
  const messages: T[] = [];
  try {
    for await (const message of stream) messages.push(message);
    return { code: status.OK, details: '', response: messages };
  } catch (error) {
    return toOutcome(error as ServiceError, messages);
  }
}

export class PushHandle {
  readonly stream: PushStream;
  readonly outcome: Promise<Outcome<xmasq.v1.PodEventsSummary>>;

  constructor(stream: PushStream, outcome: Promise<Outcome<xmasq.v1.PodEventsSummary>>) {
    this.stream = stream;
    this.outcome = outcome;
    stream.on('error', () => undefined);
  }

  send(event: xmasq.v1.PodEvent.$Properties): this {
    this.stream.write(new xmasq.v1.PodEvent(event));
    return this;
  }

  end(): Promise<Outcome<xmasq.v1.PodEventsSummary>> {
    this.stream.end();
    return this.outcome;
  }
}

function toOutcome<T>(error: ServiceError | null, response?: T): Outcome<T> {
  return {
    code: error?.code ?? status.OK,
    details: error?.details ?? '',
    ...(response !== undefined && { response }),
  };
}

/** Waits until the condition holds, for at most two seconds. */
export async function eventually(condition: () => boolean, what: string): Promise<void> {
  const until = performance.now() + 2000;
  while (!condition()) {
    if (performance.now() > until) throw new Error(`still not so after 2 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** A valid pod. */
export function pod(name: string, values: xmasq.v1.Pod.$Properties = {}): xmasq.v1.Pod.$Properties {
  const number = Number(/\d+$/.exec(name)?.[0] ?? '0');
  return {
    namespace: 'default',
    name,
    containerId: `container-${name}`,
    ifName: `veth${number}`,
    ips: [`10.10.1.${number + 2}`],
    mac: `02:00:00:00:00:0${number}`,
    ...values,
  };
}
