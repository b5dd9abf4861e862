import type { ClusterProblem } from '../state/cluster.ts';
import { actionFor, describe } from './api-error.ts';

/** Takes the present problem; undefined: there is none. */
export type TroubleSink = (problem: ClusterProblem | undefined) => void;

/** Milliseconds in which the kinds of an API that went away fail one after the other. */
const SETTLE_MS = 1000;

/**
 * Puts the troubles of several followed kinds together: when the API is away, it is away for all of them. The first one and the
 * end of all are told at once, what changes in between when it has settled: each that is told may become an Event.
 */
export class Troubles {
  readonly #sink: TroubleSink;
  readonly #errors = new Map<string, unknown>();
  #told: string | undefined;
  #settling: NodeJS.Timeout | undefined;

  constructor(sink: TroubleSink) {
    this.#sink = sink;
  }

  /** @param path the kind. @param error undefined: it is over */
  put(path: string, error: unknown): void {
    if (error === undefined) this.#errors.delete(path);
    else this.#errors.set(path, error);
    if (this.#told === undefined || this.#errors.size === 0) this.#tell();
    else this.#settling ??= setTimeout(() => this.#tell(), SETTLE_MS).unref();
  }

  #tell(): void {
    clearTimeout(this.#settling);
    this.#settling = undefined;
    const problem = this.#problem();
    if (problem?.what === this.#told) return;
    this.#told = problem?.what;
    this.#sink(problem);
  }

  #problem(): ClusterProblem | undefined {
    const [first] = this.#errors;
    if (first === undefined) return undefined;
    const [path, error] = first;
    const what = this.#errors.size === 1 ? `cannot follow ${path}` : `cannot follow ${path} and other kinds`;
    return { what: describe(what, error), where: 'Kubernetes API', action: actionFor(error) };
  }
}
