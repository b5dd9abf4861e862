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
import type { TunnelPorts } from '../packet.ts';
import { startCapture } from './capture.ts';
import { inNamespace } from './namespaces.ts';
import { run } from './process.ts';
import type { ProcessTable } from './process.ts';

/** What every place of a lab needs of it. */
export interface LabContext {
  readonly dir: string;
  readonly processes: ProcessTable;
  /** By which captures know the lab's tunnel packets. */
  readonly tunnelPorts: TunnelPorts;
}

/** Facts of a place; only addresses change. */
export interface PlaceFacts {
  readonly name: string;
  readonly namespace: string;
  readonly address: string;
  readonly address6: string | undefined;
  readonly device: string;
  readonly mtu: number;
  readonly mac: string;
}

export class NativePlace implements Place {
  readonly name: string;
  readonly namespace: string;
  readonly device: string;
  readonly mtu: number;
  readonly #context: LabContext;
  #facts: PlaceFacts;

  constructor(context: LabContext, facts: PlaceFacts) {
    this.#context = context;
    this.#facts = facts;
    this.name = facts.name;
    this.namespace = facts.namespace;
    this.device = facts.device;
    this.mtu = facts.mtu;
  }

  get address(): string {
    return this.#facts.address;
  }

  get address6(): string | undefined {
    return this.#facts.address6;
  }

  get mac(): string {
    return this.#facts.mac;
  }

  /** Takes note of what was changed at run time. */
  protected changed(facts: Partial<Pick<PlaceFacts, 'address' | 'address6' | 'mac'>>): void {
    this.#facts = { ...this.#facts, ...facts };
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
    return startCapture(this, this.#context, options);
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
