import { errorMessage } from '../util/errors.ts';
import type { Finding, Outcome } from './finding.ts';

/** What a check needs of earlier ones, by the name of the check that gives it; undefined: that one could not. */
type Needs = Readonly<Record<string, unknown>>;
type Given<N extends Needs> = { readonly [K in keyof N]: Exclude<N[K], undefined> };

/** The checks of one run, one after the other. A check whose needs were not met is skipped: its failure would say nothing. */
export class Examination {
  readonly #findings: Finding[] = [];

  get findings(): readonly Finding[] {
    return this.#findings;
  }

  /**
   * Makes a check.
   * @returns its value; undefined where it failed or was skipped
   */
  async look<N extends Needs, T>(
    check: string,
    needs: N,
    run: (given: Given<N>) => Outcome<T> | Promise<Outcome<T>>,
  ): Promise<T | undefined> {
    const unmet = Object.keys(needs).filter((name) => needs[name] === undefined);
    if (unmet.length > 0) {
      this.#findings.push({
        check,
        result: 'skipped',
        what: `not looked at, for want of: ${unmet.join(', ')}`,
        where: '',
        action: '',
      });
      return undefined;
    }
    try {
      const { verdicts, value } = await run(needs as Given<N>);
      this.#findings.push(...verdicts.map((verdict) => ({ check, ...verdict })));
      return value;
    } catch (error) {
      this.#findings.push({
        check,
        result: 'failed',
        what: `the check itself failed: ${errorMessage(error)}`,
        where: 'xmasq doctor',
        action: 'report this',
      });
      return undefined;
    }
  }
}
