import { errorCode, errorMessage } from '../util/errors.ts';

/** The API server answered, but not with what was asked for. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  /** HTTP status; 410 also for an expired version told within a watch. */
  readonly status: number;
  /** Of the header Retry-After, in milliseconds. */
  readonly retryAfterMs: number | undefined;

  constructor(status: number, message: string, retryAfterMs?: number) {
    super(message);
    this.status = status;
    this.retryAfterMs = retryAfterMs;
  }
}

/** HTTP status of an answer; undefined: there was none. */
export function statusOf(error: unknown): number | undefined {
  return error instanceof ApiError ? error.status : undefined;
}

/** Whether credentials may be the trouble: refused, or a certificate that the present authority has not signed. */
export function isCredentialError(error: unknown): boolean {
  if (statusOf(error) === 401) return true;
  const code = errorCode(error) ?? '';
  return /CERT|SELF_SIGNED|UNABLE_TO_VERIFY|ERR_SSL|ERR_TLS/.test(code);
}

/** Milliseconds of a header Retry-After (seconds or a date), at most `maxMs`. */
export function parseRetryAfter(header: string | undefined, now: number, maxMs = 120_000): number | undefined {
  if (header === undefined) return undefined;
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - now;
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), maxMs) : undefined;
}

/** What whoever reads a status should do about an error. */
export function actionFor(error: unknown): string {
  switch (statusOf(error)) {
    case 401:
      return "check the service account's token";
    case 403:
      return 'grant the rights of the chart charts/xmasq to the service account';
    default:
      return (
        'see that this node reaches the API server, and with the right authority; the last known state stays in force, and ' +
        'it is tried again by itself'
      );
  }
}

/** For status: what fails, and why. */
export function describe(what: string, error: unknown): string {
  const status = statusOf(error);
  return `${what}: ${status === undefined ? errorMessage(error) : `${status} ${errorMessage(error)}`}`;
}
