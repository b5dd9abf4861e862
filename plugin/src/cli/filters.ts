/** Options by which commands choose flows, as conditions of a request. */
import type { Command } from 'commander';
import type { xmasq } from '../gen/xmasq.js';
import { integerArgument, podArgument, protocolArgument, type PodArgument } from './arguments.ts';
import { usageError } from './exit.ts';

export interface FilterOptions {
  readonly pod?: PodArgument;
  readonly namespace?: string;
  readonly ip?: string;
  readonly peer?: string;
  readonly protocol?: number;
  readonly port?: number;
}

/** Declares the options of FilterOptions. */
export function declareFilters(command: Command): Command {
  return command
    .option('--pod <[namespace/]name>', 'a pod on either end', podArgument)
    .option('-n, --namespace <name>', 'namespace of a pod on either end')
    .option('--ip <address>', 'address of either end')
    .option('--peer <node>', 'name of the other node')
    .option('--protocol <name|number>', 'tcp, udp, icmp, sctp, ...', protocolArgument)
    .option('--port <number>', 'port of either end', integerArgument(1, 65535));
}

/** The conditions for the sidecar. @throws CliError USAGE */
export function filterConditions(options: FilterOptions): xmasq.v1.FlowsRequest.$Properties {
  const { pod, namespace, ip, peer, protocol, port } = options;
  if (pod?.namespace !== undefined && namespace !== undefined && pod.namespace !== namespace) {
    throw usageError(`--pod and --namespace name two namespaces, ${pod.namespace} and ${namespace}`);
  }
  const inNamespace = pod?.namespace ?? namespace;
  return {
    ...(pod !== undefined && { pod: pod.name }),
    ...(inNamespace !== undefined && { namespace: inNamespace }),
    ...(ip !== undefined && { ip }),
    ...(peer !== undefined && { peer }),
    ...(protocol !== undefined && { protocol }),
    ...(port !== undefined && { port }),
  };
}
