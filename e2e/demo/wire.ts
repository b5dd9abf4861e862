/** What crosses the underlay of the XMasq lab while established flows run, and what `xmasq flows` says of them. */
import { LabError, sleep } from '../lab/lab.ts';
import type { Lab } from '../lab/lab.ts';
import type { LabSidecars } from '../lab/sidecar.ts';
import { countWire } from '../lab/wire.ts';
import type { WireCount } from '../lab/wire.ts';
import { establish } from './established.ts';

const CAPTURE_MS = 1500;

/** What was seen. */
export interface WireReport {
  readonly count: WireCount;
  /** Packets that the capture itself lost. */
  readonly dropped: number;
  /** Path of the capture file. */
  readonly capture: string;
  /** The command and what it printed. */
  readonly command: string;
  readonly flowTable: string;
}

/** Captures on the first node's uplink while a TCP transfer and UDP requests run on the fast path. */
export async function lookAtWire(lab: Lab, sidecars: LabSidecars): Promise<WireReport> {
  const established = await establish(lab, sidecars);
  try {
    const capture = await lab.node(0).capture({ filter: `host ${lab.node(1).address}` });
    await sleep(CAPTURE_MS);
    const { packets, dropped } = await capture.stop();
    const arguments_ = ['flows', '--port', String(established.sample.port)];
    const { code, stdout, stderr } = await sidecars.node(0).cli(arguments_);
    if (code !== 0) throw new LabError(`xmasq ${arguments_.join(' ')}: exit code ${String(code)}: ${stderr}`);
    return {
      count: countWire(packets, established.flows),
      dropped,
      capture: capture.path,
      command: `xmasq ${arguments_.join(' ')}`,
      flowTable: stdout,
    };
  } finally {
    await established.stop();
  }
}
