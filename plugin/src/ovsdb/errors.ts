/** The peer does not speak OVSDB as it should; the connection cannot be used any more. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
}

/** The server answered a request with an error. */
export class ReplyError extends Error {
  override readonly name = 'ReplyError';
  readonly method: string;
  /** The server's own word, e.g. `unknown database`. */
  readonly error: string;

  constructor(method: string, error: string) {
    super(`the server refuses ${method}: ${error}`);
    this.method = method;
    this.error = error;
  }
}
