import { status, type ServerErrorResponse } from '@grpc/grpc-js';
import { errorMessage } from '../util/errors.ts';
import { NotFoundError, PreconditionError } from './backend.ts';

/** An error with a gRPC status code of its own. */
export class RpcError extends Error {
  override readonly name = 'RpcError';
  readonly code: status;

  constructor(code: status, message: string) {
    super(message);
    this.code = code;
  }
}

/** A request that is wrong, whatever the state of the node: INVALID_ARGUMENT. */
export function invalidArgument(message: string): RpcError {
  return new RpcError(status.INVALID_ARGUMENT, message);
}

/** Status messages travel in an HTTP/2 header: longer ones are cut. */
const MAX_DETAILS = 2000;

/** The gRPC status for any error: its own code, the code of a backend error, or INTERNAL. */
export function toStatus(error: unknown): Partial<ServerErrorResponse> & { code: status; details: string } {
  const message = errorMessage(error);
  return { name: 'RpcError', message, code: codeOf(error), details: message.slice(0, MAX_DETAILS) };
}

function codeOf(error: unknown): status {
  if (error instanceof RpcError) return error.code;
  if (error instanceof NotFoundError) return status.NOT_FOUND;
  if (error instanceof PreconditionError) return status.FAILED_PRECONDITION;
  return status.INTERNAL;
}
