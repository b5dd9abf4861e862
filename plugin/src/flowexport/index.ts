/**
 * Flow records of antrea-agent: takes them, names flows by them, proposes approvals, and passes them on with what the fast
 * path has carried. Everything else of the sidecar goes on without this module.
 */
import { monotonic, type Log } from '../dataplane/ports.ts';
import { Throttle } from '../dataplane/throttle.ts';
import { AllowedFlows, type AllowedCounts, type AllowedFlowsOptions } from './allowed-flows.ts';
import { FlowAccounting, type AccountingCounts } from './accounting.ts';
import type { ReadBypass } from './bypass.ts';
import { ExportClient, type ExportClientCounts, type ExportClientOptions } from './export-client.ts';
import { FlowNames } from './flow-names.ts';
import type { FlowRecord } from './record.ts';
import { FlowExportServer, type ServerCounts } from './server.ts';
import { RecordStore, type StoreCounts } from './store.ts';
import type { TlsSource } from './tls-material.ts';

export { bypassReader, type ReadBypass } from './bypass.ts';
export { CertificateFiles, type CertificateFilesOptions } from './certificate-files.ts';
export { FlowNames, type FlowNaming, type NamedFlow } from './flow-names.ts';
export { IssuedCertificates, type IssuedCertificatesOptions } from './issued-certificates.ts';
export type { FlowRecord, RecordNames, RecordPolicy, RecordService } from './record.ts';
export { flowWords, policyText } from './words.ts';
export type { TlsMaterial, TlsProblem, TlsSource } from './tls-material.ts';

export interface FlowExportOptions {
  /** Default 127.0.0.1. */
  readonly host?: string;
  readonly port: number;
  /** Certificates of the server; closed by stop(). */
  readonly tls: TlsSource;
  readonly log: Log;
  /** Connections remembered; default 65536, some 40 MB when full. */
  readonly records?: number;
  /** Proposes approvals; absent: does not. */
  readonly allowed?: AllowedFlowsOptions;
  /** Passes records on; absent: does not. */
  readonly accounting?: ExportClientOptions & { readonly readBypass: ReadBypass; readonly intervalMs?: number };
}

/** Sums since the start, for metrics. Parts that are off are absent. */
export interface FlowExportCounts {
  readonly server: ServerCounts;
  readonly open: { readonly connections: number; readonly streams: number };
  readonly store: StoreCounts;
  /** Connections remembered now. */
  readonly records: number;
  /** Records with which something went wrong in the sidecar itself; logged. */
  readonly failed: number;
  readonly allowed?: AllowedCounts;
  readonly accounting?: AccountingCounts;
  readonly client?: ExportClientCounts;
}

const ACCOUNTING_TICK_MS = 1000;

/** All of it, running. */
export class FlowExport {
  readonly names: FlowNames;
  readonly #tls: TlsSource;
  readonly #log: Log;
  readonly #throttle = new Throttle(monotonic);
  readonly #store: RecordStore;
  readonly #allowed: AllowedFlows | undefined;
  readonly #accounting: FlowAccounting | undefined;
  readonly #client: ExportClient | undefined;
  #server: FlowExportServer | undefined;
  #timer: NodeJS.Timeout | undefined;
  #failed = 0;

  private constructor({ tls, log, records = 65536, allowed, accounting }: FlowExportOptions) {
    this.#tls = tls;
    this.#log = log;
    this.#store = new RecordStore(records);
    this.names = new FlowNames(this.#store);
    this.#allowed = allowed && new AllowedFlows(allowed);
    if (accounting === undefined) return;
    const client = new ExportClient(accounting);
    const { readBypass, intervalMs } = accounting;
    this.#client = client;
    this.#accounting = new FlowAccounting({
      readBypass,
      send: (message) => client.send(message),
      ...(intervalMs === undefined ? {} : { intervalMs }),
    });
  }

  /** @throws Error naming the address where it cannot be listened on */
  static async start(options: FlowExportOptions): Promise<FlowExport> {
    const flowExport = new FlowExport(options);
    const { host, port, tls } = options;
    flowExport.#server = await FlowExportServer.start({
      ...(host === undefined ? {} : { host }),
      port,
      tls,
      onFlow: (record, raw) => flowExport.#take(record, raw),
    });
    flowExport.#timer = setInterval(() => void flowExport.#tick(), ACCOUNTING_TICK_MS);
    flowExport.#timer.unref();
    return flowExport;
  }

  /** Where agents are to connect. */
  get port(): number {
    return this.#serving.port;
  }

  get counts(): FlowExportCounts {
    return {
      server: this.#serving.counts,
      open: this.#serving.open,
      store: this.#store.counts,
      records: this.#store.size,
      failed: this.#failed,
      ...(this.#allowed && { allowed: this.#allowed.counts }),
      ...(this.#accounting && { accounting: this.#accounting.counts }),
      ...(this.#client && { client: this.#client.counts }),
    };
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#serving.stop();
    this.#client?.stop();
    this.#tls.close();
  }

  get #serving(): FlowExportServer {
    if (this.#server === undefined) throw new Error('the flow export has not started');
    return this.#server;
  }

  /** Maps and conntrack may fail at any time; the stream of records must not end for it. */
  #take(record: FlowRecord, raw: Buffer): void {
    const arrival = this.#store.put(record);
    if (arrival === 'duplicate' || arrival === 'stale') return;
    try {
      this.#allowed?.take(record);
      this.#accounting?.take(record, raw);
    } catch (error) {
      this.#trouble(error);
    }
  }

  async #tick(): Promise<void> {
    try {
      await this.#accounting?.tick();
    } catch (error) {
      this.#trouble(error);
    }
  }

  #trouble(error: unknown): void {
    this.#failed++;
    if (this.#throttle.allows('record')) this.#log.error({ err: error }, 'a flow record could not be used');
  }
}
