/** A client of the PodEvents service, as an agent would be: one stream, a snapshot first, then what changes. */
import { status } from '@grpc/grpc-js';
import type { Client, ClientWritableStream, ServiceError } from '@grpc/grpc-js';
import { xmasq } from '../../plugin/src/gen/xmasq.js';
import { PodEventsDefinition } from '../../plugin/src/grpc/services.ts';
import type { Endpoint } from './lab.ts';

/** How a stream ended. */
export interface StreamEnd {
  /** gRPC status code; 0 is OK. */
  readonly code: status;
  /** The status message; empty if OK. */
  readonly details: string;
  /** What the sidecar counted; only if OK. */
  readonly summary: xmasq.v1.PodEventsSummary | undefined;
}

/** One PodEvents stream. What is sent after its end is lost, as with every stream. */
export class PodEventsStream {
  /** Resolves when the stream has ended, whoever ended it; never rejects. */
  readonly ended: Promise<StreamEnd>;
  readonly #stream: ClientWritableStream<xmasq.v1.PodEvent>;
  #open = true;

  private constructor(client: Client) {
    const { path, requestSerialize, responseDeserialize } = PodEventsDefinition.push;
    const { promise, resolve } = Promise.withResolvers<StreamEnd>();
    this.#stream = client.makeClientStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      (error: ServiceError | null, summary?: xmasq.v1.PodEventsSummary) => {
        this.#open = false;
        resolve({ code: error?.code ?? status.OK, details: error?.details ?? '', summary });
      },
    );
    // The callback above tells of the error; an unhandled event would end the process.
    this.#stream.on('error', () => undefined);
    this.ended = promise;
  }

  /** Opens a stream and sends the snapshot. */
  static open(client: Client, pods: readonly Endpoint[]): PodEventsStream {
    const stream = new PodEventsStream(client);
    stream.send({ snapshot: { pods: pods.map(toMessage) } });
    return stream;
  }

  /** False once the stream has ended. */
  get open(): boolean {
    return this.#open;
  }

  added(pod: Endpoint): void {
    this.send({ added: toMessage(pod) });
  }

  changed(pod: Endpoint): void {
    this.send({ changed: toMessage(pod) });
  }

  removed(pod: Endpoint): void {
    this.send({ removed: { namespace: pod.namespace, name: pod.name, containerId: pod.containerId } });
  }

  /** Any message, also wrong ones. */
  send(event: xmasq.v1.PodEvent.$Properties): void {
    this.#stream.write(new xmasq.v1.PodEvent(event));
  }

  /** Ends the stream as an agent does that stops. */
  close(): Promise<StreamEnd> {
    if (this.#open) this.#stream.end();
    return this.ended;
  }

  /** Breaks the stream off. */
  cancel(): Promise<StreamEnd> {
    this.#stream.cancel();
    return this.ended;
  }
}

function toMessage(pod: Endpoint): xmasq.v1.Pod.$Properties {
  return {
    namespace: pod.namespace,
    name: pod.name,
    containerId: pod.containerId,
    ifName: pod.ifName,
    ips: [...pod.ips],
    mac: pod.mac,
  };
}
