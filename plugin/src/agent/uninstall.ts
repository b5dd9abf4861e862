/** `xmasq-agent uninstall`: asks the sidecars of a release to leave their nodes, and waits until all have done so. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from '../dataplane/ports.ts';
import {
  CAPABILITY_ANNOTATION,
  listPages,
  parseAnswer,
  persistently,
  putAnswer,
  putRequest,
  Reflector,
  statusOf,
  UNINSTALL_ANNOTATION,
  UNINSTALL_CONFIG_MAP,
  type ApiClient,
  type FollowTimes,
  type KubeObject,
  type UninstallAnswer,
} from '../kubernetes/index.ts';
import { errorMessage } from '../util/errors.ts';

/** Label of the DaemonSet's pods. */
const POD_LABEL = 'app=xmasq';
const PAGE_SIZE = 500;
/** Nodes that an error names. */
const MAX_NAMED = 20;
/** Nodes whose annotations are taken away at a time. */
const FORGET_AT_ONCE = 8;
const ALIVE_MS = 60_000;
/** Between two lines on how far it is. */
const SAY_MS = 5000;

export interface UninstallOptions extends FollowTimes {
  readonly api: ApiClient;
  /** Of the release. */
  readonly namespace: string;
  /** Milliseconds for all of it. */
  readonly timeoutMs: number;
  readonly log: Log;
  /** Tells a person what goes on. */
  readonly say: (line: string) => void;
}

/** Not all nodes are clean, or the sidecars could not be asked. */
export class UninstallError extends Error {
  override readonly name = 'UninstallError';
}

/** What is kept of a Node. */
interface NodeState {
  readonly capable: boolean;
  readonly answer: UninstallAnswer | undefined;
}

function nodeState({ metadata }: KubeObject): NodeState {
  const { annotations = {} } = metadata ?? {};
  return {
    capable: annotations[CAPABILITY_ANNOTATION] !== undefined,
    answer: parseAnswer(annotations[UNINSTALL_ANNOTATION]),
  };
}

/**
 * Waits for the nodes with a pod of XMasq, and those that say that they take part. Those that leave the cluster meanwhile are
 * not waited for. At the end no annotation of XMasq is left. What was asked stays asked, also after an error: nodes that are
 * clean stay so, and the next try asks anew.
 * @returns the number of nodes
 * @throws UninstallError naming the nodes that are not clean
 */
export async function uninstall(options: UninstallOptions): Promise<number> {
  const { api, timeoutMs, backoff } = options;
  const signal = AbortSignal.timeout(timeoutMs);
  const common = { api, signal, ...(backoff !== undefined && { backoff }) };
  // Pauses between tries keep no process alive.
  const alive = setInterval(() => undefined, ALIVE_MS);
  try {
    return await askAndWait(options, common);
  } finally {
    clearInterval(alive);
  }
}

async function askAndWait(
  options: UninstallOptions,
  common: { readonly api: ApiClient; readonly signal: AbortSignal },
): Promise<number> {
  const { api, namespace } = options;
  const { signal } = common;
  const request = randomUUID();
  try {
    await putRequest(common, namespace, request);
  } catch (error) {
    const missing = `; is ${namespace} the namespace of the release, and was it installed by this version of the chart?`;
    throw new UninstallError(
      `the sidecars cannot be asked by ConfigMap ${namespace}/${UNINSTALL_CONFIG_MAP}: ${errorMessage(error)}` +
        (statusOf(error) === 404 ? missing : ''),
    );
  }
  const withPod = await persistently(common, () => nodesWithPod(api, namespace, signal)).catch((error: unknown) => {
    throw new UninstallError(`the pods in ${namespace} cannot be listed: ${errorMessage(error)}`);
  });
  const nodes = new Reflector<NodeState>({
    ...options,
    path: '/api/v1/nodes',
    project: nodeState,
    changed: () => undefined,
  });
  nodes.start();
  try {
    const count = await allClean(options, { request, withPod, nodes, signal });
    const marked = [...nodes.items].filter(([, { capable, answer }]) => capable || answer !== undefined);
    while (marked.length > 0) {
      const some = marked.splice(0, FORGET_AT_ONCE);
      await Promise.all(some.map(([name]) => putAnswer(common, name, undefined, true)));
    }
    return count;
  } finally {
    await nodes.stop();
  }
}

/** Names of nodes. */
async function nodesWithPod(api: ApiClient, namespace: string, signal: AbortSignal): Promise<ReadonlySet<string>> {
  const names = new Set<string>();
  const path = `/api/v1/namespaces/${namespace}/pods`;
  await listPages({ api, path, query: { labelSelector: POD_LABEL }, pageSize: PAGE_SIZE, signal }, (object) => {
    const { spec } = object as { readonly spec?: { readonly nodeName?: string } };
    if (spec?.nodeName !== undefined) names.add(spec.nodeName);
  });
  return names;
}

interface Waiting {
  readonly request: string;
  readonly withPod: ReadonlySet<string>;
  readonly nodes: Reflector<NodeState>;
  readonly signal: AbortSignal;
}

/** @returns the number of nodes */
async function allClean(
  { say, timeoutMs }: UninstallOptions,
  { request, withPod, nodes, signal }: Waiting,
): Promise<number> {
  let awaited: ReadonlySet<string> | undefined;
  let said = { clean: -1, at: 0 };
  for (;;) {
    if (nodes.synced) {
      awaited ??= new Set([...withPod, ...[...nodes.items].flatMap(([name, { capable }]) => (capable ? [name] : []))]);
      const present = [...awaited].filter((name) => nodes.items.has(name));
      const dirty = present.filter((name) => {
        const answer = nodes.items.get(name)?.answer;
        return answer?.request !== request || answer.error !== undefined;
      });
      const clean = present.length - dirty.length;
      if (dirty.length === 0 || (clean !== said.clean && Date.now() - said.at >= SAY_MS)) {
        say(`${clean} of ${present.length} nodes are clean`);
        said = { clean, at: Date.now() };
      }
      if (dirty.length === 0) return present.length;
      if (signal.aborted) {
        const why = dirty.map((name) => reasonOf(name, nodes.items.get(name), request, withPod)).sort();
        throw new UninstallError(unclean(why, present.length, timeoutMs));
      }
    } else if (signal.aborted) {
      throw new UninstallError(`the Nodes could not be listed within ${timeoutMs / 1000} s: see to the API server`);
    }
    await sleep(200);
  }
}

function reasonOf(name: string, state: NodeState | undefined, request: string, withPod: ReadonlySet<string>): string {
  if (state?.answer?.request === request) return `${name} (${state.answer.error ?? ''})`;
  return `${name} (no answer${withPod.has(name) ? '' : ', and no pod of XMasq there'})`;
}

function unclean(why: readonly string[], nodes: number, timeoutMs: number): string {
  const rest = why.length - MAX_NAMED;
  return (
    `XMasq was not removed from ${why.length} of ${nodes} nodes within ${timeoutMs / 1000} s: ` +
    `${why.slice(0, MAX_NAMED).join(', ')}${rest > 0 ? ` and ${rest} more` : ''}. ` +
    'See to the sidecars there, or take these nodes out of the cluster, and uninstall again; ' +
    'without the hook ("helm uninstall --no-hooks") the data plane stays on them until they restart'
  );
}
