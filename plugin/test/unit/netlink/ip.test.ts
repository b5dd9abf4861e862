import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { formatIpv4, formatIpv6, parseIpv4 } from '../../../src/netlink/ip.ts';

describe('IPv4', () => {
  test('text and number name the same address', () => {
    expect(parseIpv4('10.244.1.2')).toBe(0x0af40102);
    expect(formatIpv4(0xffffffff)).toBe('255.255.255.255');
    fc.assert(fc.property(fc.nat(0xffffffff), (address) => parseIpv4(formatIpv4(address)) === address));
  });

  test.each(['', '10.1', '010.1.1.1', '256.0.0.1', '1.2.3.4 ', '::1'])('refuses %p', (text) => {
    expect(() => parseIpv4(text)).toThrow(RangeError);
  });
});

describe('IPv6', () => {
  test.each([
    ['00000000000000000000000000000000', '::'],
    ['00000000000000000000000000000001', '::1'],
    ['fd000000000000000000000000000002', 'fd00::2'],
    ['20010db8000000000001000000000001', '2001:db8::1:0:0:1'],
    ['20010db8000100010001000100010000', '2001:db8:1:1:1:1:1:0'],
    ['20010db8000000010001000100010001', '2001:db8:0:1:1:1:1:1'],
    ['fe800000000000000000000000000000', 'fe80::'],
  ])('%s is %s', (hex, text) => {
    expect(formatIpv6(Buffer.from(hex, 'hex'))).toBe(text);
  });

  test('refuses another size', () => {
    expect(() => formatIpv6(new Uint8Array(4))).toThrow(RangeError);
  });
});
