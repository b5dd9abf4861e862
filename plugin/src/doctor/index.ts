/**
 * Why XMasq does not work on this node, or would not: every check that the sidecar makes at its start, made by the same
 * functions, and a look at the sidecar itself. Changes nothing, and needs no running sidecar.
 */
import type { Config } from '../config/config.ts';
import type { ConfigEnvironment } from '../config/load.ts';
import type { UplinkDevice } from '../dataplane/uplink.ts';
import type { xmasq } from '../gen/xmasq.js';
import type { OvsdbState } from '../ovsdb/index.ts';
import { checkAgent, checkDegradations, checkMetrics, type AskAgent } from './agent.ts';
import { checkAntrea, checkCluster } from './cluster.ts';
import { checkConfiguration } from './configuration.ts';
import { checkBpffs, checkPinned, checkTc } from './data-plane.ts';
import { Examination } from './examination.ts';
import type { Finding } from './finding.ts';
import {
  checkBpf,
  checkBpfFiles,
  checkBtf,
  checkCapabilities,
  checkClock,
  checkConntrack,
  checkKernel,
  checkLibbpf,
  checkPrograms,
  checkUser,
} from './machine.ts';
import { checkOvsdb } from './ovsdb.ts';
import { checkUplink } from './uplink.ts';

export { getHttp, type AskAgent } from './agent.ts';
export { RESULTS, type Finding, type Result } from './finding.ts';

export interface DoctorOptions {
  readonly configFile: string;
  readonly environment: ConfigEnvironment;
  /** Where the BPF objects are; undefined: at the usual places. */
  readonly bpfDirectory: string | undefined;
  /** Undefined: the configured one. */
  readonly socket: string | undefined;
  /** Where neither is known. */
  readonly defaultSocket: string;
  readonly ask: AskAgent;
}

export interface Report {
  readonly findings: readonly Finding[];
  /** What was found on the way; undefined: could not be. */
  readonly config: Config | undefined;
  readonly ovsdb: OvsdbState | undefined;
  readonly uplinks: readonly UplinkDevice[];
  readonly status: xmasq.v1.StatusResponse | undefined;
  /** Where the sidecar was looked for. */
  readonly socket: string;
}

/** Makes all checks; about two seconds, half a minute where something does not answer. */
export async function examine(options: DoctorOptions): Promise<Report> {
  const { configFile, environment, bpfDirectory, defaultSocket, ask } = options;
  const checks = new Examination();

  const user = await checks.look('user', {}, checkUser);
  const configuration = await checks.look('configuration', { user }, () => checkConfiguration(configFile, environment));

  const capabilities = await checks.look('capabilities', { user }, checkCapabilities);
  const bpf = await checks.look('bpf', { capabilities }, checkBpf);
  const btf = await checks.look('btf', {}, checkBtf);
  const clock = await checks.look('clock', {}, checkClock);
  const conntrack = await checks.look('conntrack', { bpf }, checkConntrack);
  const libbpf = await checks.look('libbpf', {}, checkLibbpf);
  const objects = await checks.look('objects', {}, () => checkBpfFiles(bpfDirectory));
  const kernel = await checks.look('kernel', { bpf, btf, clock, conntrack, libbpf, objects }, ({ objects: files }) =>
    checkKernel(files),
  );
  await checks.look('programs', { kernel, objects }, ({ objects: files }) => checkPrograms(files));

  const bpffs = await checks.look('bpffs', { configuration }, (given) => checkBpffs(given.configuration));
  const pinned = await checks.look('pinned', { configuration, bpf, libbpf, objects, bpffs }, (given) =>
    checkPinned(given.configuration, given.bpffs, given.objects),
  );

  const cluster = await checks.look('cluster', { configuration }, (given) => checkCluster(given.configuration));
  await checks.look('antrea', { configuration, cluster }, (given) => checkAntrea(given.configuration, given.cluster));
  const ovsdb = await checks.look('ovsdb', { configuration }, (given) => checkOvsdb(given.configuration));
  const uplink = await checks.look('uplink', { configuration, cluster }, (given) =>
    checkUplink(given.configuration, given.cluster.own),
  );
  await checks.look('tc', { bpffs, pinned, uplink }, (given) =>
    checkTc(given.bpffs, given.pinned.loaded, given.uplink),
  );

  const socket = options.socket ?? configuration?.socket ?? defaultSocket;
  const agent = await checks.look('agent', { user }, () => checkAgent(socket, configuration, ask));
  await checks.look('degradations', { agent }, (given) => checkDegradations(given.agent, checks.findings));
  await checks.look('metrics', { configuration, agent }, (given) => checkMetrics(given.configuration, given.agent));

  return {
    findings: checks.findings,
    config: configuration,
    ovsdb,
    uplinks: uplink ?? [],
    status: agent?.status,
    socket,
  };
}
