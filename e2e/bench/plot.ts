/**
 * A result as a picture: grouped bars with their spread, and below them how much of the gap is closed, with its interval. Figures of different
 * units stand beside each other in percent of the host network's. Text to text; PNG is made of it by rsvg-convert.
 */
import { NAMES, PATHS, gapText } from './result.ts';
import type { FigureFacts, PathName, Row } from './result.ts';

/** Colours that stay apart for most people with a colour deficiency (Okabe and Ito). */
const COLOURS: Readonly<Record<PathName, string>> = {
  host: '#0072b2',
  hostK8s: '#56b4e9',
  overlay: '#e69f00',
  xmasq: '#009e73',
};
const GREY = '#888888';

/** All in pixels. */
const LEFT = 60;
const TOP = 60;
const BAR = 14;
const GROUP = PATHS.length * BAR + 16;
/** Of a group's bars. */
const MIDDLE = (PATHS.length * BAR) / 2;
const LEGEND = 150;
const BARS_HEIGHT = 260;
const GAP_TOP = TOP + BARS_HEIGHT + 40;
const GAP_HEIGHT = 130;
const LABELS_HEIGHT = 310;
/** Names of the last groups, which are aslant. */
const RIGHT = 200;
const TICKS = 5;
/** Percent that the lower panel shows; what is beyond is cut and still has its number. */
const GAP_RANGE = [-20, 120] as const;

/** A picture of some rows of a result. */
export interface Plot {
  /** Of the files, without extension. */
  readonly name: string;
  readonly title: string;
  readonly shows: (metric: string) => boolean;
}

/**
 * The picture, as SVG.
 * @param all the result; throws RangeError if the picture shows none of it
 */
export function plotOf(
  { title, shows }: Plot,
  all: readonly Row[],
  facts: Readonly<Record<string, FigureFacts>>,
): string {
  const rows = all.filter(({ metric }) => shows(metric));
  if (rows.length === 0) throw new RangeError(`nothing to show of ${title}`);
  const highest = Math.max(...rows.flatMap((row) => PATHS.map((path) => percent(row, row[path] + row.spread[path]))));
  const top = Math.max(100, Math.ceil(highest / 50) * 50);
  const width = LEFT + rows.length * GROUP + RIGHT;
  const height = GAP_TOP + GAP_HEIGHT + LABELS_HEIGHT;
  const y = (value: number): number => TOP + BARS_HEIGHT * (1 - value / top);
  const [lowest, most] = GAP_RANGE;
  const gapY = (value: number): number =>
    GAP_TOP + GAP_HEIGHT * (1 - (Math.min(most, Math.max(lowest, value)) - lowest) / (most - lowest));
  const x = (column: number): number => LEFT + column * GROUP + 8;
  const line = (value: number, at: number): string[] => [
    `<line x1="${LEFT}" x2="${width - RIGHT}" y1="${n(at)}" y2="${n(at)}" stroke="#dddddd"/>`,
    text(LEFT - 6, at + 4, `${value} %`, 'text-anchor="end"'),
  ];
  const ticks = Array.from({ length: TICKS + 1 }, (_, i) => Math.round((top / TICKS) * i));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="sans-serif" font-size="11">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    text(LEFT, 20, title, 'font-size="15" font-weight="bold"'),
    ...PATHS.flatMap((path, i) => [
      `<rect x="${LEFT + i * LEGEND}" y="32" width="10" height="10" fill="${COLOURS[path]}"/>`,
      text(LEFT + i * LEGEND + 15, 41, NAMES[path]),
    ]),
    text(LEFT + PATHS.length * LEGEND, 41, 'in percent of the host network'),
    ...ticks.flatMap((value) => line(value, y(value))),
    ...rows.flatMap((row, column) => PATHS.map((path, i) => bar(row, path, x(column) + i * BAR, y))),
    text(LEFT, GAP_TOP - 10, 'gap closed: 0 % overlay, 100 % host network'),
    ...[0, 50, 100].flatMap((value) => line(value, gapY(value))),
    ...rows.flatMap((row, column) => gapBar(row, x(column), gapY)),
    ...rows.map((row, column) => {
      const at = `${n(x(column) + MIDDLE)},${GAP_TOP + GAP_HEIGHT + 14}`;
      return `<text transform="translate(${at}) rotate(55)">${escaped(labelOf(row, facts))}</text>`;
    }),
    '</svg>',
    '',
  ].join('\n');
}

function labelOf({ metric, unit }: Row, facts: Readonly<Record<string, FigureFacts>>): string {
  return `${facts[metric]?.title ?? metric}${lowerIsBetter(unit) ? ' (less is better)' : ''}`;
}

/** Times are better when they are less, rates are not. */
function lowerIsBetter(unit: string): boolean {
  return ['us', 's/GB', 's/million'].includes(unit);
}

function percent({ host }: Row, value: number): number {
  return (value / host) * 100;
}

function bar(row: Row, path: PathName, x: number, y: (value: number) => number): string {
  const [value, low, high] = [row[path], row[path] - row.spread[path], row[path] + row.spread[path]].map((each) =>
    y(percent(row, each)),
  ) as [number, number, number];
  const middle = n(x + BAR / 2);
  return [
    `<rect x="${n(x)}" y="${n(value)}" width="${BAR - 1}" height="${n(y(0) - value)}" fill="${COLOURS[path]}"/>`,
    `<line x1="${middle}" x2="${middle}" y1="${n(high)}" y2="${n(Math.min(low, y(0)))}" stroke="#000000"/>`,
  ].join('');
}

function gapBar(row: Row, x: number, y: (value: number) => number): string[] {
  const { gapClosedPct: gap } = row;
  const middle = x + MIDDLE;
  if (gap === null) return [text(middle, y(0) - 4, 'n/d', `text-anchor="middle" fill="${GREY}"`, gapText(row, 'host'))];
  const [from, to] = [Math.min(y(0), y(gap)), Math.max(y(0), y(gap))];
  // What might as well be something else is pale.
  const pale = row.xmasqLike.some((path) => path !== 'hostK8s');
  const opacity = pale ? ' fill-opacity="0.5"' : '';
  const [low, high] = (row.gapIntervalPct ?? [gap, gap]).map(y) as [number, number];
  return [
    `<rect x="${n(x + 6)}" y="${n(from)}" width="${2 * MIDDLE - 12}" height="${n(to - from)}" fill="${COLOURS.xmasq}"${opacity}/>`,
    `<line x1="${n(middle)}" x2="${n(middle)}" y1="${n(high)}" y2="${n(low)}" stroke="${GREY}"/>`,
    text(middle, Math.min(from, high) - 3, String(Math.round(gap)), 'text-anchor="middle"', gapText(row, 'host')),
  ];
}

function text(x: number, y: number, content: string, attributes = '', tip = ''): string {
  const title = tip === '' ? '' : `<title>${escaped(tip)}</title>`;
  return `<text x="${n(x)}" y="${n(y)}" ${attributes}>${title}${escaped(content)}</text>`;
}

function escaped(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

/** A coordinate. */
function n(value: number): string {
  return String(Number(value.toFixed(1)));
}
