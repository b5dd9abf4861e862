import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const CONNTRACK_DIRECTORY = '/proc/sys/net/netfilter';

/** A kernel setting that cannot be read, or does not hold a number. */
export class SysctlError extends Error {
  override readonly name = 'SysctlError';
  /** The file. */
  readonly path: string;
  /** "ENOENT" and the like, or "EINVAL" for a file that holds no number. */
  readonly code: string;

  constructor(path: string, code: string, detail: string) {
    super(`kernel setting ${path}: ${detail} (${code})`);
    this.path = path;
    this.code = code;
  }
}

/** Conntrack's own timeouts, all in seconds. */
export interface ConntrackTimeouts {
  readonly tcpEstablished: number;
  /** After a RST. */
  readonly tcpClose: number;
  readonly tcpTimeWait: number;
  /** Before the second reply (before the entry is "assured"). */
  readonly udp: number;
  /** Afterwards. */
  readonly udpStream: number;
  readonly icmp: number;
  readonly icmpv6: number;
  readonly sctpEstablished: number;
  readonly sctpClosed: number;
  /** Protocols that conntrack knows nothing about. */
  readonly generic: number;
}

const timeoutFiles: Readonly<Record<keyof ConntrackTimeouts, string>> = {
  tcpEstablished: 'nf_conntrack_tcp_timeout_established',
  tcpClose: 'nf_conntrack_tcp_timeout_close',
  tcpTimeWait: 'nf_conntrack_tcp_timeout_time_wait',
  udp: 'nf_conntrack_udp_timeout',
  udpStream: 'nf_conntrack_udp_timeout_stream',
  icmp: 'nf_conntrack_icmp_timeout',
  icmpv6: 'nf_conntrack_icmpv6_timeout',
  sctpEstablished: 'nf_conntrack_sctp_timeout_established',
  sctpClosed: 'nf_conntrack_sctp_timeout_closed',
  generic: 'nf_conntrack_generic_timeout',
};

function errorCode(error: unknown): string {
  const code: unknown = typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : 'EIO';
}

/**
 * Reads a setting that is a whole number.
 * @throws SysctlError
 */
export function readNumber(path: string): number {
  let text: string;
  try {
    text = readFileSync(path, 'utf8').trim();
  } catch (error) {
    throw new SysctlError(path, errorCode(error), 'cannot be read');
  }
  if (!/^-?\d{1,15}$/.test(text)) throw new SysctlError(path, 'EINVAL', `holds "${text.slice(0, 40)}", not a number`);
  return Number(text);
}

/**
 * One of conntrack's timeouts, in seconds, in the network namespace of the calling thread.
 * @throws SysctlError ENOENT when this kernel lacks it
 */
export function conntrackTimeout(name: keyof ConntrackTimeouts, directory = CONNTRACK_DIRECTORY): number {
  return readNumber(join(directory, timeoutFiles[name]));
}

/**
 * Conntrack's timeouts in the network namespace of the calling thread. An administrator may change them at any time:
 * read them again now and then.
 * @throws SysctlError ENOENT when this kernel lacks one, as without connection tracking
 */
export function conntrackTimeouts(directory = CONNTRACK_DIRECTORY): ConntrackTimeouts {
  const read = (name: keyof ConntrackTimeouts): number => conntrackTimeout(name, directory);
  return {
    tcpEstablished: read('tcpEstablished'),
    tcpClose: read('tcpClose'),
    tcpTimeWait: read('tcpTimeWait'),
    udp: read('udp'),
    udpStream: read('udpStream'),
    icmp: read('icmp'),
    icmpv6: read('icmpv6'),
    sctpEstablished: read('sctpEstablished'),
    sctpClosed: read('sctpClosed'),
    generic: read('generic'),
  };
}

/**
 * Which conntrack entries report their end in the network namespace of the calling thread: none, all, or (the default
 * since Linux 5.19) those that were made while somebody listened.
 * @throws SysctlError
 */
export function conntrackEvents(directory = CONNTRACK_DIRECTORY): 'none' | 'all' | 'listened' {
  const value = readNumber(join(directory, 'nf_conntrack_events'));
  return value === 0 ? 'none' : value === 2 ? 'listened' : 'all';
}
