/** kubectl of one cluster, as its users have it. */
import { LabError } from '../errors.ts';
import type { ExecOptions, ExecResult } from '../lab.ts';
import { run } from '../native/process.ts';
import type { Manifest } from './objects.ts';

/** Each call is bounded by `timeoutMs` (default 15 s) and throws a LabError if kubectl fails. */
export class Kubectl {
  readonly #context: string;

  /** @param context of the kubeconfig that kubectl finds by itself */
  constructor(context: string) {
    this.#context = context;
  }

  /** The command that runs kubectl with these arguments. */
  command(args: readonly string[]): string[] {
    return ['kubectl', '--context', this.#context, ...args];
  }

  run(args: readonly string[], options?: ExecOptions): Promise<ExecResult> {
    return run(this.command(args), this.#context, options);
  }

  /** What `kubectl get` says of these, as JSON. */
  async get(args: readonly string[]): Promise<unknown> {
    const { stdout } = await this.run(['get', ...args, '-o', 'json'], { timeoutMs: 30_000 });
    try {
      return JSON.parse(stdout) as unknown;
    } catch (cause) {
      const what = `kubectl get ${args.join(' ')}`;
      throw new LabError(`${this.#context}: ${what}: no JSON: ${stdout.slice(0, 200)}`, { cause });
    }
  }

  /** Makes objects, or changes them to what is given. */
  async apply(objects: readonly Manifest[]): Promise<void> {
    const list = { apiVersion: 'v1', kind: 'List', items: objects };
    await this.run(['apply', '-f', '-'], { input: JSON.stringify(list), timeoutMs: 60_000 });
  }
}
