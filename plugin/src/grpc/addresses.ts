import { SocketAddress, isIP } from 'node:net';
import { invalidArgument } from './errors.ts';

/**
 * An address of a request as text that compares (RFC 5952).
 * @param field its name, for the message
 * @throws RpcError INVALID_ARGUMENT
 */
export function canonicalAddress(field: string, ip: string): string {
  const version = isIP(ip);
  if (version === 0 || ip.includes('%')) {
    throw invalidArgument(`field ${field} is ${JSON.stringify(ip.slice(0, 80))}; expected an IPv4 or IPv6 address`);
  }
  return version === 4 ? ip : new SocketAddress({ address: ip, family: 'ipv6' }).address;
}
