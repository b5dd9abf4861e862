import { FileError, readText } from '../config/yaml-file.ts';
import { errorMessage } from '../util/errors.ts';
import type { ClusterConsumer, ClusterProblem, ClusterSource, ClusterState } from './cluster.ts';
import { diffCluster, isEmptyDiff } from './cluster-diff.ts';
import { parseCluster } from './cluster-parse.ts';
import { FileWatch, type FileWatchOptions } from './file-watch.ts';

/** 8192 nodes take about 1.5 MB. */
const MAX_BYTES = 8 * 1024 * 1024;
/** Lines of a long list of problems that a status shows. */
const MAX_PROBLEM_LINES = 3;

export interface StaticClusterOptions extends FileWatchOptions {
  /** YAML or JSON file. */
  readonly file: string;
  /** This node's name. */
  readonly nodeName: string;
  /** Milliseconds until a state that the consumer rejected is handed to it again; default 5000. */
  readonly retryMs?: number;
}

/**
 * Cluster state from a file, followed while it changes. A version that is wrong, or a file that is gone, becomes a problem,
 * and the last good state stays in force.
 */
export class StaticCluster implements ClusterSource {
  readonly #options: StaticClusterOptions;
  #watch: FileWatch | undefined;
  #retry: NodeJS.Timeout | undefined;
  #state: ClusterState | undefined;
  #text: string | undefined;
  #problem: ClusterProblem | undefined;
  #running: Promise<void> | undefined;
  #again = false;
  #stopped = false;

  constructor(options: StaticClusterOptions) {
    this.#options = options;
  }

  /** @throws FileError the file is missing or wrong */
  async start(consumer: ClusterConsumer): Promise<void> {
    const { file } = this.#options;
    // Watch first: a change between reading and watching would be lost.
    const watch = new FileWatch(file, () => this.#refresh(consumer), this.#options);
    this.#watch = watch;
    this.#running = this.#first(consumer);
    try {
      await this.#running;
    } catch (error) {
      watch.close();
      throw error;
    } finally {
      this.#running = undefined;
    }
    if (this.#again) this.#refresh(consumer);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#watch?.close();
    clearTimeout(this.#retry);
    await this.#running?.catch(() => undefined);
  }

  async #first(consumer: ClusterConsumer): Promise<void> {
    const { file, nodeName } = this.#options;
    const text = await readText(file, MAX_BYTES);
    const state = parseCluster(file, text, nodeName);
    await consumer.state(state, diffCluster(undefined, state));
    this.#text = text;
    this.#state = state;
  }

  /** Reads the file soon, and once more if it changes meanwhile; never twice at a time. */
  #refresh(consumer: ClusterConsumer): void {
    if (this.#stopped) return;
    if (this.#running !== undefined) {
      this.#again = true;
      return;
    }
    this.#again = false;
    clearTimeout(this.#retry);
    this.#running = this.#readOnce(consumer).finally(() => {
      this.#running = undefined;
      if (this.#again) this.#refresh(consumer);
    });
  }

  /** Never rejects. */
  async #readOnce(consumer: ClusterConsumer): Promise<void> {
    const { file, nodeName } = this.#options;
    try {
      const text = await readText(file, MAX_BYTES);
      if (text !== this.#text) {
        const state = parseCluster(file, text, nodeName);
        const diff = diffCluster(this.#state, state);
        const modeChanged = state.trafficEncapMode !== this.#state?.trafficEncapMode;
        if ((modeChanged || !isEmptyDiff(diff)) && !this.#stopped) await consumer.state(state, diff);
        this.#text = text;
        this.#state = state;
      }
      this.#report(consumer, undefined);
    } catch (error) {
      this.#report(consumer, toProblem(file, error));
      if (!(error instanceof FileError)) this.#retryLater(consumer);
    }
  }

  #retryLater(consumer: ClusterConsumer): void {
    if (this.#stopped) return;
    this.#retry = setTimeout(() => this.#refresh(consumer), this.#options.retryMs ?? 5000);
    this.#retry.unref();
  }

  #report(consumer: ClusterConsumer, problem: ClusterProblem | undefined): void {
    if (this.#stopped || problem?.what === this.#problem?.what) return;
    this.#problem = problem;
    consumer.problem(problem);
  }
}

function toProblem(file: string, error: unknown): ClusterProblem {
  if (!(error instanceof FileError)) {
    return {
      what: `a new cluster state could not be put in force: ${errorMessage(error)}`,
      where: file,
      action: 'see the log; it is tried again by itself',
    };
  }
  const lines = error.message.split('\n');
  const rest = lines.length - MAX_PROBLEM_LINES;
  const shown = lines.slice(0, MAX_PROBLEM_LINES).join('; ');
  return {
    what: `the new cluster state is not used: ${shown}${rest > 0 ? `; and ${rest} more problems` : ''}`,
    where: file,
    action: 'correct the file; the last good version stays in force until then',
  };
}
