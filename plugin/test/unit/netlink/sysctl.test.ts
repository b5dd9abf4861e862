import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import {
  SysctlError,
  conntrackEvents,
  conntrackTimeout,
  conntrackTimeouts,
  readNumber,
} from '../../../src/netlink/sysctl.ts';

let directory = '';

function put(name: string, content: string): void {
  writeFileSync(join(directory, name), content);
}

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'sysctl-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

/** What a failing call throws. */
function failure(call: () => unknown): unknown {
  try {
    call();
  } catch (error) {
    return error;
  }
  throw new Error('an error was expected');
}

describe('conntrack timeouts', () => {
  test('are read in seconds; a missing one is named', () => {
    const files = [
      'tcp_timeout_established',
      'tcp_timeout_close',
      'tcp_timeout_time_wait',
      'udp_timeout',
      'udp_timeout_stream',
      'icmp_timeout',
      'icmpv6_timeout',
      'sctp_timeout_established',
      'sctp_timeout_closed',
    ];
    files.forEach((file, index) => put(`nf_conntrack_${file}`, `${10 + index}\n`));
    const missing = failure(() => conntrackTimeouts(directory));
    expect(missing).toBeInstanceOf(SysctlError);
    expect(missing).toMatchObject({ code: 'ENOENT', path: join(directory, 'nf_conntrack_generic_timeout') });
    put('nf_conntrack_generic_timeout', '600\n');
    expect(conntrackTimeouts(directory)).toEqual({
      tcpEstablished: 10,
      tcpClose: 11,
      tcpTimeWait: 12,
      udp: 13,
      udpStream: 14,
      icmp: 15,
      icmpv6: 16,
      sctpEstablished: 17,
      sctpClosed: 18,
      generic: 600,
    });
    expect(conntrackTimeout('udpStream', directory)).toBe(14);
  });

  test.each(['', 'abc', '1 2', '1.5', '9'.repeat(16)])('refuse %p as a number', (content) => {
    put('odd', content);
    expect(failure(() => readNumber(join(directory, 'odd')))).toMatchObject({ name: 'SysctlError', code: 'EINVAL' });
  });

  test.each([
    ['0', 'none'],
    ['1', 'all'],
    ['2', 'listened'],
  ])('events setting %s means %s', (content, expected) => {
    put('nf_conntrack_events', content);
    expect(conntrackEvents(directory)).toBe(expected);
  });
});
