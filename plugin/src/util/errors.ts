/**
 * The `code` of a Node.js error, e.g. `ENOENT`; undefined if it has none. Not by `instanceof`: errors of Node's own modules
 * belong to another realm where tests run.
 */
export function errorCode(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** What went wrong, for people. */
export function errorMessage(error: unknown): string {
  const hasMessage = typeof error === 'object' && error !== null && 'message' in error;
  return hasMessage && typeof error.message === 'string' ? error.message : String(error);
}

/** Something is missing or in the way that an administrator has to see to. */
export class RequirementError extends Error {
  override readonly name = 'RequirementError';
  readonly what: string;
  readonly action: string;

  /** The message is both, as one line. */
  constructor(what: string, action: string) {
    super(`${what}: ${action}`);
    this.what = what;
    this.action = action;
  }
}
