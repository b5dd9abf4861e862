/** What a spec that runs in the micro-VM tells the host: a line of JSON each, behind a mark that nothing else prints. */

export type SpecEvent =
  /** Everything that will run, in order. */
  | { readonly type: 'specs'; readonly specs: readonly SpecName[] }
  | { readonly type: 'begin'; readonly index: number }
  | { readonly type: 'end'; readonly index: number; readonly result: SpecResult }
  /** The last one. `failure`: what went wrong outside of the specs. */
  | { readonly type: 'done'; readonly failure: string | undefined };

/** The titles of the blocks around it, then its own. */
export interface SpecName {
  readonly blocks: readonly string[];
  readonly title: string;
}

export interface SpecResult {
  readonly status: 'passed' | 'failed' | 'pending';
  readonly milliseconds: number;
  /** One text per error, with its stack. */
  readonly errors: readonly string[];
  /** Of a spec that was tried again. */
  readonly earlierErrors: readonly string[];
}

const MARK = '@@xmasq-spec ';

/** The line to print, without line end. */
export function encodeEvent(event: SpecEvent): string {
  return MARK + JSON.stringify(event);
}

/** The event of a line; undefined if the line is none. */
export function decodeEvent(line: string): SpecEvent | undefined {
  return line.startsWith(MARK) ? (JSON.parse(line.slice(MARK.length)) as SpecEvent) : undefined;
}
