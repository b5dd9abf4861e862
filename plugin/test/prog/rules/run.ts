import { afterAll, beforeAll, beforeEach, describe, test } from '@jest/globals';
import { Bench, Node } from '../harness.ts';
import type { Rule } from './rule.ts';

/** One test per rule, each on a fresh state. @param path the object; default the one that is shipped */
export function testRules(title: string, rules: readonly Rule[], path?: () => string): void {
  describe(title, () => {
    let node: Node;
    let bench: Bench;
    beforeAll(async () => {
      node = await Node.create();
      bench = new Bench(node, path?.());
    });
    afterAll(() => {
      bench.close();
      node.close();
    });
    beforeEach(() => bench.reset());
    test.each(rules.map((rule) => [rule.name, rule] as const))('%s', (_name, rule) => rule.check(bench));
  });
}
