import type { ClusterProblem } from '../state/cluster.ts';
import { actionFor, describe } from './api-error.ts';

/** Takes the present problem; undefined: there is none. */
export type TroubleSink = (problem: ClusterProblem | undefined) => void;

/** Puts the troubles of several followed kinds together: when the API is away, it is away for all of them. */
export class Troubles {
  readonly #sink: TroubleSink;
  readonly #errors = new Map<string, unknown>();
  #told: string | undefined;

  constructor(sink: TroubleSink) {
    this.#sink = sink;
  }

  /** @param path the kind. @param error undefined: it is over */
  put(path: string, error: unknown): void {
    if (error === undefined) this.#errors.delete(path);
    else this.#errors.set(path, error);
    const [first] = this.#errors;
    const rest = this.#errors.size - 1;
    const problem =
      first === undefined
        ? undefined
        : {
            what: describe(`cannot follow ${first[0]}${rest > 0 ? ` and ${rest} more kinds` : ''}`, first[1]),
            where: 'Kubernetes API',
            action: actionFor(first[1]),
          };
    if (problem?.what === this.#told) return;
    this.#told = problem?.what;
    this.#sink(problem);
  }
}
