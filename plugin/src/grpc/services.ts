/**
 * The services of proto/xmasq/v1 as grpc-js wants them, for servers and clients alike. Written by hand: it is a handful of
 * lines, and a generator for them would be one more dependency.
 */
import { Buffer } from 'node:buffer';
import type { MethodDefinition } from '@grpc/grpc-js';
import { xmasq } from '../gen/xmasq.js';

const v1 = xmasq.v1;

/** What generated message classes have in common. */
interface MessageClass<T> {
  new (): T;
  encode(message: NoInfer<T>): { finish(): Uint8Array };
  decode(bytes: Uint8Array): NoInfer<T>;
}

function method<Request, Response>(
  path: string,
  request: MessageClass<Request>,
  response: MessageClass<Response>,
  streams: { readonly request?: true; readonly response?: true } = {},
): MethodDefinition<Request, Response> {
  return {
    path,
    requestStream: streams.request ?? false,
    responseStream: streams.response ?? false,
    requestSerialize: (message) => toBuffer(request.encode(message).finish()),
    requestDeserialize: (bytes) => request.decode(bytes),
    responseSerialize: (message) => toBuffer(response.encode(message).finish()),
    responseDeserialize: (bytes) => response.decode(bytes),
  };
}

/** The same bytes, not a copy. */
function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Service `xmasq.v1.Admin`. */
export const AdminDefinition = {
  status: method('/xmasq.v1.Admin/Status', v1.StatusRequest, v1.StatusResponse),
  peers: method('/xmasq.v1.Admin/Peers', v1.PeersRequest, v1.PeersResponse),
  endpoints: method('/xmasq.v1.Admin/Endpoints', v1.EndpointsRequest, v1.EndpointsResponse),
  flows: method('/xmasq.v1.Admin/Flows', v1.FlowsRequest, v1.FlowsResponse, { response: true }),
  trace: method('/xmasq.v1.Admin/Trace', v1.TraceRequest, v1.TraceResponse, { response: true }),
  flush: method('/xmasq.v1.Admin/Flush', v1.FlushRequest, v1.FlushResponse),
  drain: method('/xmasq.v1.Admin/Drain', v1.DrainRequest, v1.DrainResponse),
  undrain: method('/xmasq.v1.Admin/Undrain', v1.UndrainRequest, v1.DrainResponse),
  version: method('/xmasq.v1.Admin/Version', v1.VersionRequest, v1.VersionResponse),
} as const;

/** Service `xmasq.v1.PodEvents`. */
export const PodEventsDefinition = {
  push: method('/xmasq.v1.PodEvents/Push', v1.PodEvent, v1.PodEventsSummary, { request: true }),
} as const;
