/**
 * Counts the instructions of a packet inside the micro-VM, whose clock they are (counted.ts). Prints a figure per line, and what
 * it is doing on standard error.
 */
import { Node } from '../../../plugin/test/prog/harness.ts';
import { LabError } from '../../lab/errors.ts';
import { NS_PER_INSTRUCTION, printFigure } from '../icount/counting.ts';
import { COUNTED } from './figures.ts';
import type { Instructions } from './figures.ts';
import { Crowd, PROGRAMS } from './packets.ts';

const PACKETS = 5000;
/** All of them have their turn within 80 ms of this machine's clock, in which a packet takes some 10 us. */
const MOST_IN_TURN = 5000;

const driver = process.env['XMASQ_BENCH_DRIVER'] ?? '';
const node = await Node.create();
try {
  for (const { name, title, flows, peers } of COUNTED) {
    process.stderr.write(`counting: filling maps, ${title}\n`);
    const crowd = new Crowd(node, driver, { flows, peers }, MOST_IN_TURN);
    try {
      for (const program of PROGRAMS) {
        const { ns, late } = crowd.sample(program, PACKETS);
        if (late) throw new LabError(`${program}, ${title}: packets took so long that their flows counted as idle`);
        const figure: Instructions = { program, name, instructions: ns / NS_PER_INSTRUCTION };
        printFigure(figure);
      }
    } finally {
      crowd.close();
    }
  }
} finally {
  node.close();
}
