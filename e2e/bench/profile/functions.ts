/** From traces of executed instructions to what a transaction costs in each function. */
import { round } from '../statistics.ts';

/** A way through the nodes, as bench-icount has them. */
export type TracedPath = 'host' | 'overlay' | 'xmasq';

/** What XMasq's transactions are compared with: requests with the host network's, connections with the overlay's. */
export const COMPARED = [
  { metric: 'tcp_rr', title: 'a request and its response', to: 'host' },
  { metric: 'tcp_crr', title: 'a connection for a request and its response', to: 'overlay' },
] as const satisfies readonly { readonly metric: string; readonly title: string; readonly to: TracedPath }[];

/** What the guest says when it may be traced. */
export const GO = 'GO';

/** Whoever sends calls it once (net/socket.c); a transaction is sent twice: a request and its response. */
const SENDS = '__sys_sendto';
const SENDS_OF_TRANSACTION = 2;

/** Below it a program's own addresses, above it the kernel's (x86-64). */
const KERNEL_FROM = 0xffff800000000000n;
const PROGRAM = 'user space';

/** Instructions of a transaction, by function. */
export type Costs = ReadonlyMap<string, number>;

interface Function {
  readonly address: bigint;
  readonly name: string;
}

/**
 * Functions of a kernel, by address, from /proc/kallsyms. Those of programs in eBPF lose their tags, so that those of both
 * nodes are the same; so does what the compiler adds to a name.
 */
export function functionsOf(kallsyms: string): Function[] {
  return kallsyms
    .split('\n')
    .flatMap((line) => {
      const [address, type, name] = line.split(/\s+/);
      if (address === undefined || name === undefined || !/^[tTwW]$/.test(type ?? '')) return [];
      return [{ address: BigInt(`0x${address}`), name: plain(name) }];
    })
    .sort((a, b) => (a.address < b.address ? -1 : 1));
}

function plain(name: string): string {
  const program = /^bpf_prog_[0-9a-f]{16}_(\w+)$/.exec(name)?.[1];
  return program === undefined ? name.replace(/\.(constprop|isra|part|cold).*$/, '') : `${program} (eBPF)`;
}

/** Counts a trace, line by line as QEMU writes it (`-d exec` with a translation block for each instruction). */
export class Trace {
  readonly #functions: readonly Function[];
  /** What is at an address that was met: a search each would take long. */
  readonly #met = new Map<string, { readonly name: string; readonly first: boolean }>();
  readonly #instructions = new Map<string, number>();
  #sends = 0;

  constructor(functions: readonly Function[]) {
    this.#functions = functions;
  }

  add(line: string): void {
    const [, address] = /^Trace \d+: \S+ \[[0-9a-f]+\/([0-9a-f]{16})\//.exec(line) ?? [];
    if (address === undefined) return;
    let at = this.#met.get(address);
    if (at === undefined) this.#met.set(address, (at = this.#find(BigInt(`0x${address}`))));
    this.#instructions.set(at.name, (this.#instructions.get(at.name) ?? 0) + 1);
    if (at.first && at.name === SENDS) this.#sends += 1;
  }

  /** @throws Error where nothing was exchanged */
  costs(): Costs {
    const transactions = this.#sends / SENDS_OF_TRANSACTION;
    if (transactions < 1) throw new Error(`no transaction in the trace: ${SENDS} was called ${this.#sends} times`);
    return new Map([...this.#instructions].map(([name, count]) => [name, count / transactions]));
  }

  #find(address: bigint): { readonly name: string; readonly first: boolean } {
    if (address < KERNEL_FROM) return { name: PROGRAM, first: false };
    let [low, high] = [0, this.#functions.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#functions[middle]?.address ?? 0n) <= address) low = middle + 1;
      else high = middle;
    }
    const found = this.#functions[low - 1];
    return { name: found?.name ?? 'unknown', first: found?.address === address };
  }
}

/** A function, or what is left of them. */
export interface TraceRow {
  readonly function: string;
  /** Instructions of a transaction by the way that XMasq is compared with. */
  readonly other: number;
  readonly xmasq: number;
}

/** A comparison's result. */
export interface TraceResult {
  readonly metric: string;
  readonly title: string;
  readonly to: TracedPath;
  readonly rows: readonly TraceRow[];
}

/** Functions that XMasq's transactions spend more in than the other way's, the dearest first, and all others together. */
export function rowsOf(other: Costs, xmasq: Costs, most: number): TraceRow[] {
  const names = new Set([...other.keys(), ...xmasq.keys()]);
  const all = [...names].map((name) => ({
    function: name,
    other: other.get(name) ?? 0,
    xmasq: xmasq.get(name) ?? 0,
  }));
  const sorted = all.toSorted((a, b) => more(b) - more(a));
  const sum = (name: string, rows: readonly TraceRow[]): TraceRow => ({
    function: name,
    other: rows.reduce((total, row) => total + row.other, 0),
    xmasq: rows.reduce((total, row) => total + row.xmasq, 0),
  });
  return [...sorted.slice(0, most), sum('all others', sorted.slice(most)), sum('all', sorted)].map((row) => ({
    function: row.function,
    other: round(row.other, 0),
    xmasq: round(row.xmasq, 0),
  }));
}

function more({ other, xmasq }: TraceRow): number {
  return xmasq - other;
}

/** A comparison as a table in Markdown. */
export function tableOf({ title, to, rows }: TraceResult): string {
  const text = (value: number): string => value.toLocaleString('en');
  const lines = rows.map((row) => [row.function, text(row.other), text(row.xmasq), text(more(row))]);
  const head = [`function, ${title}`, to, 'XMasq', 'more'];
  return [head, ['---', '---:', '---:', '---:'], ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
