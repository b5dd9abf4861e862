/** What a command may touch of the process. */
export interface Io {
  /** Writes to standard output; resolves when more may be written. Does nothing once nobody reads it any more. */
  out(text: string): Promise<void>;
  /** Standard output is a terminal: escape sequences are welcome. */
  readonly terminal: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted when the user interrupts the command, or nobody reads its output any more. */
  readonly stopped: AbortSignal;
}
