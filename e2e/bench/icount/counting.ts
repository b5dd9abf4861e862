/** What the counting machine (machine.ts) and the programs in it agree on. */

/** Nanoseconds of the guest's clock for an instruction: QEMU's `-icount shift=2`. */
export const NS_PER_INSTRUCTION = 4;

const FIGURE = 'FIGURE ';

/** What a program in the guest calls with each of its figures. */
export function printFigure(figure: object): void {
  process.stdout.write(`${FIGURE}${JSON.stringify(figure)}\n`);
}

/** The figures in what a program has printed. */
export function figuresOf<Figure>(output: string): Figure[] {
  return output
    .split('\n')
    .filter((line) => line.startsWith(FIGURE))
    .map((line) => JSON.parse(line.slice(FIGURE.length)) as Figure);
}
