/**
 * Runs the sidecar while its node may have a data plane. When the release's ConfigMap asks for it (kubernetes/uninstall.ts)
 * the node is drained, the sidecar ends, everything of it is removed, and the process stays to say so.
 */
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { Registry } from 'prom-client';
import type { Config, KubernetesConfig } from '../config/config.ts';
import { PinLayout } from '../dataplane/pins.ts';
import type { Log } from '../dataplane/ports.ts';
import {
  apiClient,
  Backoff,
  pause,
  putAnswer,
  UninstallFlag,
  type ApiClient,
  type FlagState,
} from '../kubernetes/index.ts';
import { errorMessage } from '../util/errors.ts';
import type { BpfFiles } from './bpf-files.ts';
import { cleanup } from './cleanup.ts';
import type { Health } from './health.ts';
import { serveHttp } from './http.ts';
import { startAgent, type RunningAgent } from './run.ts';

/** A node without data plane waits so long for the API before it begins: it may have been told to leave. */
const ASK_MS = 5000;
/** Between two tries to remove what would not go, and its double, up to the second. */
const RETRY = { firstMs: 5000, maxMs: 60_000 };
const ALIVE_MS = 60_000;
/** For taking the answer back; the sidecar starts all the same. */
const FORGET_MS = 10_000;

/** Runs until `signal` is aborted; the data plane goes on then, unless it was removed. @throws as `startAgent` does */
export async function superviseAgent(config: Config, files: BpfFiles, log: Log, signal: AbortSignal): Promise<void> {
  const { kubernetes } = config.clusterState;
  if (kubernetes === undefined) {
    await runUntil(config, files, log, signal);
    return;
  }
  await new Supervisor(config, kubernetes, files, log).run(signal);
}

async function runUntil(config: Config, files: BpfFiles, log: Log, signal: AbortSignal): Promise<void> {
  let agent: RunningAgent;
  try {
    agent = await startAgent(config, files, log, signal);
  } catch (error) {
    if (signal.aborted) return;
    throw error;
  }
  await aborted(signal);
  await stop(agent, log);
}

async function stop(agent: RunningAgent, log: Log): Promise<void> {
  log.info({}, 'stopping; the data plane goes on');
  await agent.stop();
}

class Supervisor {
  readonly #config: Config;
  readonly #files: BpfFiles;
  readonly #log: Log;
  readonly #api: ApiClient;
  readonly #flag: UninstallFlag;
  readonly #pins: PinLayout;
  /** There while everything is removed: a restart must not attach again, also where the API is away. */
  readonly #note: string;

  constructor(config: Config, kubernetes: KubernetesConfig, files: BpfFiles, log: Log) {
    this.#config = config;
    this.#files = files;
    this.#log = log;
    this.#api = apiClient(kubernetes);
    this.#flag = new UninstallFlag({ api: this.#api, namespace: kubernetes.namespace, log });
    this.#pins = new PinLayout(config.bpffs);
    this.#note = `${config.socket}.uninstalled`;
  }

  async run(signal: AbortSignal): Promise<void> {
    this.#flag.start();
    // What waits for an API that is away keeps no process alive.
    const alive = setInterval(() => undefined, ALIVE_MS);
    try {
      // A call, since the compiler takes the property for what it was before a wait.
      const ended = (): boolean => signal.aborted;
      while (!ended()) {
        if (await this.#mayRun(signal)) await this.#runUntilAsked(signal);
        if (!ended()) await this.#stayAway(signal);
      }
    } finally {
      clearInterval(alive);
      await this.#flag.stop();
      this.#api.close();
    }
  }

  async #mayRun(signal: AbortSignal): Promise<boolean> {
    // A data plane that is there goes on, with its sidecar; it goes when the API says so.
    if (this.#pins.exists()) return true;
    await this.#flag.until(isKnown, AbortSignal.any([signal, AbortSignal.timeout(ASK_MS)]));
    const { kind } = this.#flag.state;
    return kind === 'unknown' ? !existsSync(this.#note) : kind !== 'asked';
  }

  /** Comes back with nothing running: asked to leave, or ended. */
  async #runUntilAsked(signal: AbortSignal): Promise<void> {
    let agent: RunningAgent;
    try {
      agent = await startAgent(this.#config, this.#files, this.#log, signal);
    } catch (error) {
      if (signal.aborted) return;
      // What cannot run, because of the kernel for example, may have to leave nevertheless.
      await this.#flag.until(isKnown, AbortSignal.any([signal, AbortSignal.timeout(ASK_MS)]));
      if (!isAsked(this.#flag.state)) throw error;
      this.#log.error({ err: error }, 'the sidecar cannot start; it was asked to leave anyway');
      return;
    }
    try {
      rmSync(this.#note, { force: true });
      while (await this.#flag.until(isAsked, signal)) {
        this.#log.warn({}, 'asked to leave the node: draining');
        if (await this.#drain(agent, signal)) return;
        if (!signal.aborted) await agent.undrain();
      }
    } finally {
      await stop(agent, this.#log);
    }
  }

  /** @returns false where nobody asks for it any more */
  async #drain(agent: RunningAgent, signal: AbortSignal): Promise<boolean> {
    const over = new AbortController();
    const either = AbortSignal.any([signal, over.signal]);
    const drained = agent.drain(either).then(
      () => true,
      (error: unknown) => {
        if (!either.aborted) throw error;
        return false;
      },
    );
    const done = new AbortController();
    const cleared = this.#flag.until(isClear, AbortSignal.any([signal, done.signal])).then((isIt) => {
      if (isIt) over.abort();
    });
    try {
      return await drained;
    } finally {
      done.abort();
      await cleared;
    }
  }

  /** Removes everything and says so, until the ConfigMap asks for nothing. One that is gone goes with the sidecar. */
  async #stayAway(signal: AbortSignal): Promise<void> {
    let trouble: string | undefined = 'it is being removed';
    const { address } = this.#config.metrics;
    const server =
      address === undefined
        ? undefined
        : await serveHttp({ address, registry: new Registry(), health: () => removedHealth(trouble) });
    const backoff = new Backoff(RETRY);
    try {
      while (!signal.aborted && this.#flag.state.kind !== 'clear') {
        const { state } = this.#flag;
        trouble = await this.#remove(signal);
        const changed = new AbortController();
        const stopped = AbortSignal.any([signal, changed.signal]);
        const next = this.#flag.until((now) => now.kind !== 'absent' && !isSame(now, state), signal);
        void next.then(() => changed.abort());
        if (state.kind === 'asked') await this.#answer(state.request, trouble, stopped);
        if (trouble === undefined) await next;
        else await pause(backoff.next(), stopped);
      }
      if (!signal.aborted) await this.#comeBack(signal);
    } finally {
      server?.closeAllConnections();
      server?.close();
    }
  }

  /** @returns why it did not work */
  async #remove(signal: AbortSignal): Promise<string | undefined> {
    try {
      const { attachments, pins } = await cleanup(this.#config, {
        force: false,
        wait: true,
        say: (line) => this.#log.info({}, line),
        signal,
      });
      mkdirSync(dirname(this.#note), { recursive: true, mode: 0o700 });
      writeFileSync(this.#note, '', { mode: 0o600 });
      this.#log.warn({ attachments, pins }, 'the data plane is removed, as was asked');
      return undefined;
    } catch (error) {
      if (!signal.aborted) this.#log.error({ err: error }, 'the data plane cannot be removed; it is tried again');
      return errorMessage(error);
    }
  }

  /** Until it is said, or not to be said any more. Never rejects. */
  async #answer(request: string, error: string | undefined, signal: AbortSignal): Promise<void> {
    const answer = { request, ...(error !== undefined && { error }) };
    try {
      await putAnswer({ api: this.#api, signal }, this.#config.nodeName, answer);
    } catch (cause) {
      if (!signal.aborted) this.#log.error({ err: cause }, "the answer cannot be put on this node's Node");
    }
  }

  async #comeBack(signal: AbortSignal): Promise<void> {
    this.#log.warn({}, 'nobody asks to leave the node any more: the sidecar starts again');
    rmSync(this.#note, { force: true });
    const soon = AbortSignal.any([signal, AbortSignal.timeout(FORGET_MS)]);
    try {
      await putAnswer({ api: this.#api, signal: soon }, this.#config.nodeName, undefined);
    } catch (error) {
      this.#log.warn({ err: error }, "the answer stays on this node's Node");
    }
  }
}

/** By a call, since it changes meanwhile. */
const isKnown = ({ kind }: FlagState): boolean => kind !== 'unknown';
const isAsked = ({ kind }: FlagState): boolean => kind === 'asked';
const isClear = ({ kind }: FlagState): boolean => kind === 'clear';

function isSame(one: FlagState, other: FlagState): boolean {
  return one.kind === other.kind && (one.kind !== 'asked' || other.kind !== 'asked' || one.request === other.request);
}

/** The node is not ready, since it does not do its part. @param trouble why it is not clean */
function removedHealth(trouble: string | undefined): Health {
  const line = 'ConfigMap xmasq-uninstall asks this node to leave';
  return { ready: false, lines: ['removed', trouble === undefined ? line : `${line}: ${trouble}`] };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
