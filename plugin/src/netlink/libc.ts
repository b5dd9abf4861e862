/**
 * The few C library calls that netlink needs: raw prototypes, one place.
 *
 * Only anonymous types and plain buffers are used, because koffi keeps one table of type names per process and this
 * module may be evaluated more than once. File descriptors never leave the owning class in socket.ts.
 */
import koffi from 'koffi';
import { NetlinkError } from './errors.ts';

// The running program: node is linked with the C library, whatever that library's file is called here.
const program = koffi.load(null);

type Call<A extends unknown[]> = (...args: A) => number;

const socketCall = program.func('socket', 'int', ['int', 'int', 'int']) as Call<[number, number, number]>;
const bindCall = program.func('bind', 'int', ['int', 'void *', 'uint']) as Call<[number, Buffer, number]>;
const setsockoptCall = program.func('setsockopt', 'int', ['int', 'int', 'int', 'void *', 'uint']) as Call<
  [number, number, number, Buffer, number]
>;
const sendCall = program.func('send', 'long', ['int', 'void *', 'size_t', 'int']) as Call<
  [number, Buffer, number, number]
>;
const recvfromCall = program.func('recvfrom', 'long', ['int', 'void *', 'size_t', 'int', 'void *', 'void *']) as Call<
  [number, Buffer, number, number, Buffer, Buffer]
>;
const pollCall = program.func('poll', 'int', ['void *', 'ulong', 'int']) as Call<[Buffer, number, number]>;
const closeCall = program.func('close', 'int', ['int']) as Call<[number]>;

function checked(result: number, what: string): number {
  if (result < 0) throw new NetlinkError(koffi.errno(), what);
  return result;
}

/** socket(2). */
export function socket(domain: number, type: number, protocol: number): number {
  return checked(socketCall(domain, type, protocol), 'socket(AF_NETLINK)');
}

/** bind(2) to the address in `address`. */
export function bind(fd: number, address: Buffer): void {
  checked(bindCall(fd, address, address.length), 'bind(AF_NETLINK)');
}

/** setsockopt(2) with the bytes of `value`: 0, or minus errno, because some options are optional. */
export function setsockopt(fd: number, level: number, option: number, value: Buffer): number {
  return setsockoptCall(fd, level, option, value, value.length) === 0 ? 0 : -koffi.errno();
}

/** send(2) of all of `bytes`. */
export function send(fd: number, bytes: Buffer, what: string): void {
  checked(sendCall(fd, bytes, bytes.length, 0), what);
}

/**
 * recvfrom(2).
 * @returns bytes received, or minus errno: the two errors that matter, EAGAIN and ENOBUFS, are not exceptional
 */
export function recvfrom(fd: number, into: Buffer, flags: number, address: Buffer, addressLength: Buffer): number {
  const received = recvfromCall(fd, into, into.length, flags, address, addressLength);
  return received < 0 ? -koffi.errno() : received;
}

/** poll(2) of the one descriptor in `pollfd`: descriptors that are ready, or minus errno. */
export function poll(pollfd: Buffer, timeoutMs: number): number {
  const ready = pollCall(pollfd, 1, timeoutMs);
  return ready < 0 ? -koffi.errno() : ready;
}

/** close(2); an error is of no use to anybody and is ignored. */
export function close(fd: number): void {
  closeCall(fd);
}
