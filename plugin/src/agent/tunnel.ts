import type { Config } from '../config/config.ts';
import type { Degradation } from '../grpc/backend.ts';

/**
 * The overlay's port must not be masqueraded and carries the control messages, so the configured one must be the real one.
 * @param port the real one; undefined: not known, or the tunnel has none
 */
export function tunnelMismatch({ tunnel }: Config, port: number | undefined, where: string): Degradation | undefined {
  if (port === undefined || port === tunnel.port) return undefined;
  return {
    what: `the tunnel uses port ${port}, but tunnel.port is ${tunnel.port}`,
    where,
    action: 'correct tunnel.type or tunnel.port in the configuration and start xmasq-agent again',
  };
}
