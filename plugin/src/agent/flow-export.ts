/** Antrea's flow records: served where the feature gate says so, and passed on with accelerated bytes where configured. */
import type { Config } from '../config/config.ts';
import type { FlowWords } from '../dataplane/flows.ts';
import type { FlowKey } from '../dataplane/layout.ts';
import { SECOND, type Log } from '../dataplane/ports.ts';
import type { SourceInfo } from '../grpc/backend.ts';
import {
  bypassReader,
  CertificateFiles,
  FlowExport,
  flowWords,
  IssuedCertificates,
  type FlowExportOptions,
  type TlsProblem,
  type TlsSource,
} from '../flowexport/index.ts';
import { errorMessage } from '../util/errors.ts';
import { splitHostPort } from '../util/host-port.ts';
import type { AgentParts } from './backend.ts';

/** Between two attempts to listen. */
const RETRY_MS = 10_000;

/** Keeps trying to serve; nothing else of the sidecar depends on it. */
export class FlowExportFollower {
  readonly #parts: AgentParts;
  readonly #log: Log;
  #running: FlowExport | undefined;
  #retry: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(parts: AgentParts, log: Log) {
    this.#parts = parts;
    this.#log = log;
  }

  /** What it serves with; undefined: it does not serve now. */
  get running(): FlowExport | undefined {
    return this.#running;
  }

  /** Resolves after the first attempt, whatever came of it. */
  async start(): Promise<void> {
    const { config, degradations } = this.#parts;
    const { address } = config.flowExport;
    try {
      const running = await this.#open();
      if (this.#isStopped()) {
        await running.stop();
        return;
      }
      this.#running = running;
      degradations.clear('flow-export');
      this.#log.info({ address }, 'flow export is served');
    } catch (error) {
      degradations.set('flow-export', {
        what: `flow export cannot be served: ${errorMessage(error)}`,
        where: address,
        action: 'correct flowExport in the configuration; it is tried again by itself',
      });
      if (this.#isStopped()) return;
      this.#retry = setTimeout(() => void this.start(), RETRY_MS);
      this.#retry.unref();
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#retry);
    await this.#running?.stop();
  }

  /** What records say of a flow. */
  words(key: FlowKey): FlowWords | undefined {
    return this.#running && flowWords(this.#running.names)(key);
  }

  /** By result, for metrics. */
  recordCounts(): [string, number][] {
    const counts = this.#running?.counts;
    if (counts === undefined) return [];
    return Object.entries({ ...counts.store, malformed: counts.server.malformed });
  }

  get info(): SourceInfo {
    const counts = this.#running?.counts;
    const streams = counts?.open.streams ?? 0;
    return {
      name: 'flow export',
      connected: streams > 0,
      synced: (counts?.server.flows ?? 0) > 0,
      required: false,
      detail: `${streams} streams, ${counts?.records ?? 0} flows named`,
    };
  }

  #isStopped(): boolean {
    return this.#stopped;
  }

  async #open(): Promise<FlowExport> {
    const { config, approvals, endpoints, tables, now } = this.#parts;
    const { address, records } = config.flowExport;
    const tls = await this.#certificates();
    const deviceOf = (pod: string): number | undefined => endpoints.addresses.get(pod);
    try {
      return await FlowExport.start({
        ...splitHostPort(address),
        tls,
        log: this.#log,
        records,
        allowed: {
          deviceOf,
          isApproved: (key) => (tables.approvals.get(key)?.expires ?? 0n) > now() + SECOND,
          want: (key) => approvals.want(key),
          now,
        },
        ...(await this.#accounting(deviceOf)),
      });
    } catch (error) {
      tls.close();
      throw error;
    }
  }

  #certificates(): Promise<TlsSource> {
    const { files, certificates } = this.#parts.config.flowExport;
    const onProblem = this.#problem('flow-export-tls');
    if (files !== undefined) return CertificateFiles.open({ ...files, onProblem });
    return IssuedCertificates.open({ directory: certificates, onProblem });
  }

  async #accounting(deviceOf: (address: string) => number | undefined): Promise<Pick<FlowExportOptions, 'accounting'>> {
    const { config, tables } = this.#parts;
    const { address, serverName, files, interval } = config.flowAccounting;
    if (!config.featureGates.FlowAccounting || address === undefined || files === undefined) return {};
    return {
      accounting: {
        address,
        ...(serverName === undefined ? {} : { serverName }),
        tls: await CertificateFiles.open({ ...files, onProblem: this.#problem('flow-accounting-tls') }),
        onProblem: this.#problem('flow-accounting'),
        readBypass: bypassReader(tables, deviceOf),
        intervalMs: interval * 1000,
      },
    };
  }

  #problem(key: string): (problem: TlsProblem | undefined) => void {
    return (problem) => this.#parts.degradations.put(key, problem);
  }
}

/** @returns undefined where the gate FlowExport is off */
export function flowExportFollower(parts: AgentParts, log: Log): FlowExportFollower | undefined {
  const { featureGates }: Config = parts.config;
  return featureGates.FlowExport ? new FlowExportFollower(parts, log) : undefined;
}
