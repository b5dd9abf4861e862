/** The sidecar itself, if it runs. Reaching it is the caller's: `AskAgent`. */
import { existsSync } from 'node:fs';
import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { Registry } from 'prom-client';
import { serveHttp } from '../agent/http.ts';
import { lockDirectory } from '../agent/lock.ts';
import { VERSION } from '../agent/version.ts';
import type { Config } from '../config/config.ts';
import { xmasq } from '../gen/xmasq.js';
import { lookAtSocket, probeSocket } from '../grpc/unix-socket.ts';
import { errorMessage } from '../util/errors.ts';
import { splitHostPort } from '../util/host-port.ts';
import {
  failed,
  failure,
  ok,
  problemOf,
  skipped,
  warning,
  type Finding,
  type Outcome,
  type Verdict,
} from './finding.ts';

/** Asks the sidecar for its status. @throws Error with a message for people */
export type AskAgent = (socket: string) => Promise<xmasq.v1.StatusResponse>;

/** What is known of the sidecar. */
export interface AgentSeen {
  /** Undefined: it does not run. */
  readonly status: xmasq.v1.StatusResponse | undefined;
}

/** A sidecar that starts holds its lock for a second or two before it serves. */
const START_MS = 3000;
const POLL_MS = 100;
const HTTP_MS = 5000;
/** Bytes of an answer; more is cut off. */
const MAX_HTTP_BYTES = 4 * 1024 * 1024;

const STATES: Readonly<Partial<Record<number, Pick<Verdict, 'what' | 'action'>>>> = {
  [xmasq.v1.NodeState.NODE_STATE_STARTING]: {
    what: 'it is starting: this node takes no part yet',
    action: 'wait for startHold (10 s by default); if it stays, see its log',
  },
  [xmasq.v1.NodeState.NODE_STATE_DRAINING]: {
    what: 'the node is draining',
    action: 'xmasq drain --undo takes it back',
  },
  [xmasq.v1.NodeState.NODE_STATE_DRAINED]: {
    what: 'the node is drained: nothing is accelerated',
    action: 'xmasq drain --undo takes it back',
  },
};

/** Whether the sidecar serves its socket and answers, or could start there. */
export async function checkAgent(
  socket: string,
  config: Config | undefined,
  ask: AskAgent,
): Promise<Outcome<AgentSeen>> {
  if ((await probeSocket(socket)) !== undefined) return absent(socket, config?.bpffs);
  let status: xmasq.v1.StatusResponse;
  try {
    status = await ask(socket);
  } catch (error) {
    const action =
      'see whether the process is stopped or overloaded, and whether it is xmasq-agent that serves the socket';
    return failure({ what: errorMessage(error), where: socket, action });
  }
  return { verdicts: [...statusVerdicts(status, socket, config)], value: { status } };
}

function* statusVerdicts(
  status: xmasq.v1.StatusResponse,
  where: string,
  config: Config | undefined,
): Generator<Verdict, void> {
  const state = STATES[status.state];
  if (state !== undefined) yield warning({ ...state, where });
  else yield ok(`${status.version} serves ${where}, for node ${status.nodeName}`);
  if (status.version !== VERSION) {
    const what = `xmasq-agent is ${status.version}, this command ${VERSION}`;
    yield warning({ what, where, action: 'use the command of the same version' });
  }
  if (config !== undefined && config.nodeName !== status.nodeName) {
    const what = `xmasq-agent runs for node ${status.nodeName}, the configuration is that of ${config.nodeName}`;
    yield warning({ what, where, action: 'look at the same file, and with the same NODE_NAME (--config)' });
  }
}

/** Nobody serves the socket. @param pins the pin directory; undefined: not known */
async function absent(socket: string, pins: string | undefined): Promise<Outcome<AgentSeen>> {
  let place: 'free' | 'stale';
  try {
    place = await lookAtSocket(socket);
  } catch (error) {
    return failure(problemOf(error, socket, 'see what is there; xmasq-agent cannot start as long as it is'));
  }
  const held = pins === undefined || !existsSync(pins) ? undefined : await lockedBy(pins, socket);
  if (held !== undefined) return failure(held);
  const what =
    place === 'stale' ? 'xmasq-agent has ended without removing its socket' : 'xmasq-agent does not run on this node';
  const action = 'start it; what is loaded goes on without it, but new pods and nodes are not taken up';
  return { verdicts: [warning({ what, where: socket, action })], value: { status: undefined } };
}

async function lockedBy(pins: string, socket: string) {
  const end = performance.now() + START_MS;
  for (;;) {
    try {
      lockDirectory(pins).release();
      return undefined;
    } catch (error) {
      if ((await probeSocket(socket)) === undefined) return undefined;
      if (performance.now() > end) {
        return problemOf(error, `${pins}, while nobody serves ${socket}`, 'look for a second xmasq-agent');
      }
    }
    await sleep(POLL_MS);
  }
}

/** What the sidecar finds wrong, but for what other checks have found as well. */
export function checkDegradations({ status }: AgentSeen, told: readonly Finding[]): Outcome {
  if (status === undefined) return { verdicts: [skipped('xmasq-agent does not run')], value: true };
  const known = new Set(told.map(({ what }) => what));
  const verdicts = status.degradations.flatMap(({ what, where, action }) =>
    known.has(what ?? '') ? [] : [failed({ what: what ?? '', where: where ?? '', action: action ?? '' })],
  );
  return { verdicts: verdicts.length > 0 ? verdicts : [ok('none but those above')], value: true };
}

/** Metrics and health: served, or an address that can be listened on. */
export async function checkMetrics({ metrics }: Config, { status }: AgentSeen): Promise<Outcome> {
  const { address } = metrics;
  if (address === undefined) return { verdicts: [skipped('metrics.address is not configured')], value: true };
  try {
    if (status === undefined) {
      const health = () => ({ ready: false, lines: [] });
      const server = await serveHttp({ address, registry: new Registry(), health });
      server.close();
      return { verdicts: [ok(`${address} can be listened on`)], value: true };
    }
    await getHttp(address, '/healthz');
    return { verdicts: [ok(`served on ${address}`)], value: true };
  } catch (error) {
    return failure({
      what: errorMessage(error),
      where: address,
      action: 'configure another metrics.address, or end what has taken this one (ss -ltnp)',
    });
  }
}

/** A page of the sidecar, at most 4 MiB of it. @throws Error where it is not served */
export async function getHttp(address: string, path: string): Promise<string> {
  const { host, port } = splitHostPort(address);
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => {
      reject(new Error(`${address}${path} cannot be read: ${error.message}`, { cause: error }));
    };
    request(
      { host: host === '' ? '127.0.0.1' : host, port, path, signal: AbortSignal.timeout(HTTP_MS) },
      (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (part: string) => {
          if (text.length < MAX_HTTP_BYTES) text += part;
        });
        response.on('error', fail);
        response.on('end', () => {
          if (response.statusCode === 200) resolve(text.slice(0, MAX_HTTP_BYTES));
          else fail(new Error(`HTTP status ${response.statusCode ?? 0}`));
        });
      },
    )
      .on('error', fail)
      .end();
  });
}
