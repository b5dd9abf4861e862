/**
 * Antrea's `FlowExportService` as grpc-js wants it, for servers and clients alike. Messages stay bytes: what cannot be read
 * must not end the stream, and what is passed on must not lose fields.
 */
import type { MethodDefinition } from '@grpc/grpc-js';

const bytes = (message: Buffer): Buffer => message;

/** Method `Export`: client stream of `ExportRequest`, one empty `ExportResponse`. */
export const FlowExportDefinition = {
  export: {
    path: '/antrea_io.antrea.pkg.apis.flow.v1alpha1.FlowExportService/Export',
    requestStream: true,
    responseStream: false,
    requestSerialize: bytes,
    requestDeserialize: bytes,
    responseSerialize: bytes,
    responseDeserialize: bytes,
  } satisfies MethodDefinition<Buffer, Buffer>,
} as const;

/** An `ExportResponse`. */
export const EXPORT_RESPONSE: Buffer = Buffer.alloc(0);
