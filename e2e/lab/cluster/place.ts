/** Nodes and pods of a cluster as places: commands run in their containers, captures in their network namespaces. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hostCommand } from '../../vm/command.ts';
import { sleep } from '../lab.ts';
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
import { LISTENING, SETTLE_MS, droppedPackets, tcpdumpCommand } from '../native/capture.ts';
import { readPcap } from '../pcap.ts';
import { execIn } from './remote.ts';
import type { Entry, RemoteProcesses } from './remote.ts';

/** Of pods, and of kind's nodes. */
export const DEVICE = 'eth0';
/** tcpdump ends within this. */
const CAPTURE_STOP_MS = 5000;

/** What every place of a cluster needs of its lab. */
export interface ClusterContext {
  /** For logs and captures. */
  readonly dir: string;
  readonly processes: RemoteProcesses;
}

/** What a place is. */
export interface PlaceFacts {
  readonly name: string;
  readonly address: string;
  readonly address6?: string;
  readonly mtu: number;
  readonly mac: string;
}

/** How a place is reached. */
export interface PlaceEntries {
  /** Where its commands run. */
  readonly commands: Entry;
  /** Its network, with the programs of the node: tcpdump, ethtool. */
  readonly network: Entry;
}

let serial = 0;

/** A place of a cluster. */
export class ClusterPlace implements Place {
  readonly name: string;
  readonly address: string;
  readonly address6: string | undefined;
  readonly device: string = DEVICE;
  readonly mtu: number;
  readonly mac: string;
  readonly #context: ClusterContext;
  readonly #entries: PlaceEntries;

  constructor(context: ClusterContext, facts: PlaceFacts, entries: PlaceEntries) {
    this.name = facts.name;
    this.address = facts.address;
    this.address6 = facts.address6;
    this.mtu = facts.mtu;
    this.mac = facts.mac;
    this.#context = context;
    this.#entries = entries;
  }

  exec(argv: readonly string[], options?: ExecOptions): Promise<ExecResult> {
    return execIn(this.#entries.commands, argv, options);
  }

  sh(script: string, options?: ExecOptions): Promise<ExecResult> {
    return this.exec(['sh', '-e', '-c', script], options);
  }

  spawn(argv: readonly string[], options?: SpawnOptions): Promise<Proc> {
    return this.#context.processes.start(this.#entries.commands, argv, options);
  }

  /** The file is written in the node, and fetched at the end. */
  async capture(options: CaptureOptions = {}): Promise<Capture> {
    const { network } = this.#entries;
    const device = options.device ?? this.device;
    serial += 1;
    const name = `capture-${serial}-${this.name}-${device}.pcap`;
    const remote = `/tmp/xmasq-e2e-${process.pid}-${name}`;
    const path = join(this.#context.dir, name);
    const proc = await this.#context.processes.start(network, tcpdumpCommand(device, remote, options), {
      name: `tcpdump-${this.name}`,
    });
    await proc.waitFor(LISTENING);
    return {
      path,
      stop: async () => {
        await sleep(SETTLE_MS);
        await proc.stop('SIGINT', CAPTURE_STOP_MS);
        const bytes = await fetchFile(network, remote);
        writeFileSync(path, bytes);
        await execIn(network, ['rm', '-f', remote]);
        return { packets: readPcap(bytes), dropped: droppedPackets(proc.output()) };
      },
    };
  }

  /** Switches offloads of one device, by default the place's own. */
  async offload(flags: OffloadFlags, device = this.device): Promise<void> {
    const words = Object.entries(flags).flatMap(([feature, on]) => [feature, on ? 'on' : 'off']);
    if (words.length > 0) await execIn(this.#entries.network, ['ethtool', '-K', device, ...words]);
  }
}

/** A file's bytes; `execIn` gives text. */
async function fetchFile(entry: Entry, file: string): Promise<Buffer> {
  const [program, ...args] = [...entry.before(false), 'cat', file];
  return hostCommand(program, args);
}
