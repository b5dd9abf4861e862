/**
 * Stands for `@jest/globals` inside the micro-VM, where jest itself takes most of a minute to start: collects blocks, hooks
 * and specs, and runs them in jest's order. Expectations are jest's own. What it lacks: snapshots, mocks, `only`, `todo`.
 */
import { bind } from 'jest-each';
import { TIME_FACTOR } from '../../lab/lab.ts';
import { encodeEvent } from './events.ts';
import type { SpecEvent, SpecName, SpecResult } from './events.ts';

export { expect } from 'expect';

type Body = () => unknown;

interface Hook {
  readonly body: Body;
  readonly limitMs: number;
}

interface Spec extends SpecName {
  readonly body: Body;
  readonly limitMs: number;
  readonly skipped: boolean;
}

interface Block {
  readonly title: string;
  readonly parent: Block | undefined;
  readonly children: (Block | Spec)[];
  readonly hooks: Record<'beforeAll' | 'beforeEach' | 'afterEach' | 'afterAll', Hook[]>;
}

/** How to run what was collected. */
export interface RunOptions {
  /** Limit of a spec or hook that names none, milliseconds; as all limits, it is multiplied by TIME_FACTOR. */
  readonly defaultLimitMs: number;
  /** Run only specs whose full name matches. */
  readonly namePattern?: string;
  /** How often a failed spec is tried again. */
  readonly retries: number;
}

const UNLIMITED = 0;

const root = newBlock('', undefined);
let current = root;
/** Depth of blocks that are skipped. */
let skipping = 0;

function newBlock(title: string, parent: Block | undefined): Block {
  return { title, parent, children: [], hooks: { beforeAll: [], beforeEach: [], afterEach: [], afterAll: [] } };
}

function titlesOf(block: Block): string[] {
  return block.parent === undefined ? [] : [...titlesOf(block.parent), block.title];
}

function addBlock(title: string, body: Body): void {
  const block = newBlock(title, current);
  current.children.push(block);
  const outer = current;
  current = block;
  try {
    body();
  } finally {
    current = outer;
  }
}

function skipBlock(title: string, body: Body): void {
  skipping += 1;
  try {
    addBlock(title, body);
  } finally {
    skipping -= 1;
  }
}

function addSpec(title: string, body: Body, limitMs = UNLIMITED, skipped = false): void {
  current.children.push({ blocks: titlesOf(current), title, body, limitMs, skipped: skipped || skipping > 0 });
}

function hook(kind: keyof Block['hooks']): (body: Body, limitMs?: number) => void {
  return (body, limitMs = UNLIMITED) => void current.hooks[kind].push({ body, limitMs });
}

const skipSpec = (title: string, body: Body, limitMs?: number): void => addSpec(title, body, limitMs, true);

export const describe = Object.assign(addBlock, {
  each: bind(addBlock as never, false),
  skip: Object.assign(skipBlock, { each: bind(skipBlock as never, false) }),
});
export const test = Object.assign((title: string, body: Body, limitMs?: number) => addSpec(title, body, limitMs), {
  each: bind(addSpec as never, false),
  skip: Object.assign(skipSpec, { each: bind(skipSpec as never, false) }),
});
export const it = test;
export const beforeAll = hook('beforeAll');
export const beforeEach = hook('beforeEach');
export const afterEach = hook('afterEach');
export const afterAll = hook('afterAll');

/** Runs everything that the spec file has declared. The process is over when this resolves. */
export async function runSpecs(options: RunOptions): Promise<void> {
  // As with jest: what fails before its spec waits for it fails that spec, and does not end the run.
  process.on('unhandledRejection', () => undefined);
  const runner = new Runner(options);
  const failure = await runner.run();
  report({ type: 'done', failure });
}

class Runner {
  readonly #options: RunOptions;
  readonly #specs: readonly Spec[];
  #outside: string[] = [];

  constructor(options: RunOptions) {
    this.#options = options;
    this.#specs = specsOf(root);
  }

  async run(): Promise<string | undefined> {
    report({ type: 'specs', specs: this.#specs.map(({ blocks, title }) => ({ blocks, title })) });
    await this.#block(root, []);
    return this.#outside.length === 0 ? undefined : this.#outside.join('\n\n');
  }

  /** @param broken errors of hooks around this block, which fail each of its specs */
  async #block(block: Block, broken: readonly string[]): Promise<void> {
    // As with jest: no hook runs for a block in which nothing does.
    const runs = specsOf(block).some((spec) => this.#wanted(spec));
    const failures = [...broken];
    if (runs && broken.length === 0) {
      for (const { body, limitMs } of block.hooks.beforeAll) {
        const error = await this.#limited(body, limitMs, 'beforeAll');
        if (error !== undefined) failures.push(error);
      }
    }
    for (const child of block.children) {
      if ('children' in child) await this.#block(child, failures);
      else await this.#spec(child, block, failures);
    }
    if (!runs || broken.length > 0) return;
    for (const { body, limitMs } of block.hooks.afterAll) {
      const error = await this.#limited(body, limitMs, 'afterAll');
      if (error !== undefined) this.#outside.push(`${[...titlesOf(block), 'afterAll'].join(' > ')}: ${error}`);
    }
  }

  async #spec(spec: Spec, block: Block, broken: readonly string[]): Promise<void> {
    const index = this.#specs.indexOf(spec);
    const started = performance.now();
    const end = (status: SpecResult['status'], errors: readonly string[], earlierErrors: readonly string[]): void =>
      report({
        type: 'end',
        index,
        result: { status, milliseconds: Math.round(performance.now() - started), errors, earlierErrors },
      });
    if (!this.#wanted(spec)) {
      end('pending', [], []);
      return;
    }
    report({ type: 'begin', index });
    let errors = broken;
    let earlier: readonly string[] = [];
    for (let attempt = 0; broken.length === 0 && attempt <= this.#options.retries; attempt++) {
      earlier = [...earlier, ...errors];
      errors = await this.#attempt(spec, block);
      if (errors.length === 0) break;
    }
    end(errors.length === 0 ? 'passed' : 'failed', errors, earlier);
  }

  async #attempt(spec: Spec, block: Block): Promise<string[]> {
    const blocks: Block[] = [];
    for (let each: Block | undefined = block; each !== undefined; each = each.parent) blocks.unshift(each);
    const steps: (readonly [string, Hook])[] = blocks.flatMap(({ hooks }) =>
      hooks.beforeEach.map((each) => ['beforeEach', each] as const),
    );
    const errors: string[] = [];
    for (const [what, { body, limitMs }] of [...steps, ['spec', spec] as const]) {
      const error = await this.#limited(body, limitMs, what);
      if (error === undefined) continue;
      errors.push(error);
      break;
    }
    for (const { body, limitMs } of blocks.toReversed().flatMap(({ hooks }) => hooks.afterEach)) {
      const error = await this.#limited(body, limitMs, 'afterEach');
      if (error !== undefined) errors.push(error);
    }
    return errors;
  }

  #wanted(spec: Spec): boolean {
    const { namePattern } = this.#options;
    if (spec.skipped) return false;
    return namePattern === undefined || new RegExp(namePattern, 'i').test([...spec.blocks, spec.title].join(' '));
  }

  async #limited(body: Body, limitMs: number, what: string): Promise<string | undefined> {
    const limit = (limitMs === UNLIMITED ? this.#options.defaultLimitMs : limitMs) * TIME_FACTOR;
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => late.reject(new Error(`${what}: not done within ${limit} ms`)), limit);
    try {
      await Promise.race([Promise.resolve().then(body), late.promise]);
      return undefined;
    } catch (error) {
      return error instanceof Error ? (error.stack ?? error.message) : String(error);
    } finally {
      clearTimeout(timer);
    }
  }
}

function specsOf(block: Block): Spec[] {
  return block.children.flatMap((child) => ('children' in child ? specsOf(child) : [child]));
}

function report(event: SpecEvent): void {
  process.stdout.write(`${encodeEvent(event)}\n`);
}
