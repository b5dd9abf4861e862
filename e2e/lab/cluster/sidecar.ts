/** The sidecar of a cluster's node, by the command line in its own pod. */
import { endpointsFromJson, flowsArguments, flowsFromJson, statusFromJson } from '../admin.ts';
import type { FlowFilter, SidecarEndpoint, SidecarFlow, SidecarStatus } from '../admin.ts';
import { waitForFlow } from '../awaited-flow.ts';
import { LabError } from '../lab.ts';
import type { ExecResult } from '../lab.ts';
import { run } from '../native/process.ts';
import type { Entry } from './remote.ts';

/** Exit codes of `xmasq` with an answer: all is well, something is degraded. */
const ANSWERED: readonly (number | null)[] = [0, 4];
/** Each question is a process on the way there. */
const POLL_MS = 500;
/** It gives up by itself after ten seconds. */
const CLI_MS = 20_000;

/** Each question throws a LabError if there is no answer. */
export class ClusterSidecar {
  /** Where it runs. */
  readonly node: { readonly name: string };
  readonly #entry: Entry;

  constructor(node: { readonly name: string }, entry: Entry) {
    this.node = node;
    this.#entry = entry;
  }

  /** Runs the command line tool. Never throws for an exit code. */
  cli(args: readonly string[]): Promise<ExecResult> {
    return run([...this.#entry.before(false), 'xmasq', ...args], this.#entry.name, { check: false, timeoutMs: CLI_MS });
  }

  async status(): Promise<SidecarStatus> {
    return statusFromJson(await this.#ask(['status']));
  }

  async endpoints(): Promise<SidecarEndpoint[]> {
    return endpointsFromJson(await this.#ask(['endpoints']));
  }

  async flows(filter: FlowFilter = {}): Promise<SidecarFlow[]> {
    return flowsFromJson(await this.#ask(['flows', ...flowsArguments(filter)]), filter);
  }

  /** Waits until a flow that matches is fast, in this mode if one is given; LabError with what it is like instead. */
  waitFast(filter: FlowFilter, timeoutMs: number, mode?: SidecarFlow['mode']): Promise<SidecarFlow> {
    return waitForFlow(this, {
      what: mode === undefined ? 'fast flow' : `fast flow in mode ${mode}`,
      filter,
      is: (flow) => flow.path === 'fast' && (mode === undefined || flow.mode === mode),
      timeoutMs,
      intervalMs: POLL_MS,
    });
  }

  async #ask(args: readonly string[]): Promise<Record<string, unknown>> {
    const { code, stdout, stderr } = await this.cli([...args, '-o', 'json']);
    if (!ANSWERED.includes(code))
      throw new LabError(`${this.#entry.name}: xmasq ${args.join(' ')}: exit code ${String(code)}: ${stderr.trim()}`);
    return JSON.parse(stdout) as Record<string, unknown>;
  }
}
