/** Matchers that jest lacks. */

/** Matches a number that is not smaller; for use inside `toEqual` and `toMatchObject`. */
export function atLeast(least: number): unknown {
  return {
    $$typeof: Symbol.for('jest.asymmetricMatcher'),
    asymmetricMatch: (value: unknown) => typeof value === 'number' && value >= least,
    toString: () => 'atLeast',
    toAsymmetricMatcher: () => `at least ${least}`,
  };
}

/** Matches a number that is not larger; for use inside `toEqual` and `toMatchObject`. */
export function atMost(most: number): unknown {
  return {
    $$typeof: Symbol.for('jest.asymmetricMatcher'),
    asymmetricMatch: (value: unknown) => typeof value === 'number' && value <= most,
    toString: () => 'atMost',
    toAsymmetricMatcher: () => `at most ${most}`,
  };
}
