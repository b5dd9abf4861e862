/** The table of docs/compatibility.md, made of rows of build/matrix.json or of what cells.ts expects. */
import { FAMILIES, PROTOCOLS, TARGETS, WAYS, cellsOf, expectedPath, setups } from './cells.ts';
import type { Cell, Path, Way } from './cells.ts';
import type { Family } from '../lab/lab.ts';

/** A cell and its path. */
export type Known = Cell & Path;

/** First cell of the heading, by which the table is found. */
export const FIRST_HEADING = 'Protocol';

const NAMES: Readonly<Record<Family, string>> = { ipv4: 'IPv4', ipv6: 'IPv6' };

/** What cells.ts expects of every cell. */
export function expectedRows(): Known[] {
  return setups()
    .flatMap(cellsOf)
    .map((cell) => ({ ...cell, ...expectedPath(cell) }));
}

/** The table's rows, heading first, cells as Markdown. */
export function tableOf(rows: readonly Known[]): string[][] {
  const heading = [FIRST_HEADING, 'To', 'Family', ...WAYS.map(({ mode, xdp }) => `\`${mode}\`${xdp ? ', XDP' : ''}`)];
  const lines = PROTOCOLS.flatMap((protocol) =>
    TARGETS.flatMap((target) =>
      FAMILIES.flatMap((family) => {
        const mine = rows.filter((row) => row.protocol === protocol && row.target === target && row.family === family);
        const cells = WAYS.map((way) => said(mine, way));
        return mine.length === 0 ? [] : [[protocol.toUpperCase(), target, NAMES[family], ...cells]];
      }),
    ),
  );
  return [heading, ...lines];
}

/* With offloads on and off; once, if they do not differ. Reasons as `xmasq flows` writes them. */
function said(rows: readonly Known[], way: Way): string {
  const words = rows
    .filter((row) => row.mode === way.mode && row.xdp === way.xdp)
    .map(
      ({ offloads, path, reason }) =>
        [offloads, path === 'fast' ? 'fast' : `slow: \`${reason.replaceAll('_', '-')}\``] as const,
    );
  const different = new Set(words.map(([, text]) => text));
  if (different.size <= 1) return [...different][0] ?? '?';
  return words.map(([offloads, text]) => `offloads ${offloads}: ${text}`).join('; ');
}

/** The table as Markdown. */
export function markdownOf(rows: readonly Known[]): string {
  const [heading = [], ...lines] = tableOf(rows);
  return [heading, heading.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
