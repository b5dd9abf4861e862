/** `10.1.2.3:80`, `[fd00::1]:80`. */
export function joinHostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The parts of `host:port`; of IPv6 in brackets without these. The host may be empty. */
export function splitHostPort(address: string): { readonly host: string; readonly port: number } {
  const split = address.lastIndexOf(':');
  return { host: address.slice(0, split).replace(/^\[(.*)\]$/, '$1'), port: Number(address.slice(split + 1)) };
}
