/** A network namespace as a place of the lab. */
import type {
  Capture,
  CaptureOptions,
  ExecOptions,
  ExecResult,
  OffloadFlags,
  Place,
  Proc,
  SpawnOptions,
} from '../lab.ts';
import { startCapture } from './capture.ts';
import { inNamespace } from './namespaces.ts';
import { run } from './process.ts';
import type { ProcessTable } from './process.ts';

/** What every place of a lab needs of it. */
export interface LabContext {
  readonly dir: string;
  readonly processes: ProcessTable;
}

/** Fixed facts of a place. */
export interface PlaceFacts {
  readonly name: string;
  readonly namespace: string;
  readonly address: string;
  readonly device: string;
  readonly mtu: number;
  readonly mac: string;
}

export class NativePlace implements Place {
  readonly name: string;
  readonly namespace: string;
  readonly address: string;
  readonly device: string;
  readonly mtu: number;
  readonly mac: string;
  readonly #context: LabContext;

  constructor(context: LabContext, facts: PlaceFacts) {
    this.#context = context;
    this.name = facts.name;
    this.namespace = facts.namespace;
    this.address = facts.address;
    this.device = facts.device;
    this.mtu = facts.mtu;
    this.mac = facts.mac;
  }

  exec(argv: readonly string[], options?: ExecOptions): Promise<ExecResult> {
    return run(inNamespace(this.namespace, argv), this.name, options);
  }

  sh(script: string, options?: ExecOptions): Promise<ExecResult> {
    return this.exec(['sh', '-e', '-c', script], options);
  }

  spawn(argv: readonly string[], options: SpawnOptions = {}): Promise<Proc> {
    const command = options.outside === true ? argv : inNamespace(this.namespace, argv);
    return this.#context.processes.start(command, {
      name: options.name ?? `${this.name}-${programName(argv)}`,
      ...(options.env === undefined ? {} : { env: options.env }),
    });
  }

  capture(options: CaptureOptions = {}): Promise<Capture> {
    return startCapture(this, this.#context.dir, options);
  }

  /** Switches offloads of one device of this namespace, by default the place's own. */
  async offload(flags: OffloadFlags, device = this.device): Promise<void> {
    const words = Object.entries(flags).flatMap(([feature, on]) => [feature, on ? 'on' : 'off']);
    if (words.length > 0) await this.exec(['ethtool', '-K', device, ...words]);
  }
}

function programName(argv: readonly string[]): string {
  return (argv[0] ?? 'process').replace(/^.*\//, '');
}
