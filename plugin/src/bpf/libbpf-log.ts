import { libbpf, libc, registerCallback, type CallbackPointer, type Pointer } from './libbpf.ts';

/** Bytes kept of one message: a verifier log comes as a single one. */
const MESSAGE_BYTES = 4 << 20;
/** Characters kept of all messages of one call; the oldest go first. */
const LOG_CHARACTERS = 8 << 20;
/** libbpf_print_level: messages above are dropped. */
const LEVEL_INFO = 1;

let callback: CallbackPointer | undefined;
let sink: string[] | undefined;
let scratch: Buffer | undefined;

/** Runs inside libbpf: must not throw. */
function print(level: number, format: string, args: Pointer): number {
  if (sink === undefined || level > LEVEL_INFO) return 0;
  try {
    scratch ??= Buffer.alloc(MESSAGE_BYTES);
    const wanted = libc().vsnprintf(scratch, scratch.length, format, args);
    if (wanted > 0) sink.push(scratch.toString('utf8', 0, Math.min(wanted, scratch.length - 1)));
  } catch {
    // A lost message is better than an exception that crosses C frames.
  }
  return 0;
}

/**
 * Runs `call` and returns its result with what libbpf logged meanwhile. libbpf is silent outside of such a call.
 * Synchronous and not re-entrant, as libbpf's print function is one per process.
 */
export function withLibbpfLog<T>(call: () => T): { result: T; log: string } {
  if (sink !== undefined) return { result: call(), log: '' };
  // One registration per process: libbpf must never hold the address of a released callback.
  callback ??= registerCallback(print, ['int', 'str', 'void *']).pointer;
  const messages: string[] = [];
  sink = messages;
  const api = libbpf();
  api.libbpf_set_print(callback);
  try {
    const result = call();
    return { result, log: messages.join('').slice(-LOG_CHARACTERS) };
  } finally {
    api.libbpf_set_print(null);
    sink = undefined;
    scratch = undefined;
  }
}
