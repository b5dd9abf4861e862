import type { Config } from './config.ts';
import { resolveGates } from './feature-gates.ts';
import { TUNNEL_PORTS, configSchema, type RawConfig } from './schema.ts';
import { YamlFile, readText } from './yaml-file.ts';

const MAX_BYTES = 256 * 1024;

/** Where the configuration is, unless an option says otherwise. */
export const DEFAULT_CONFIG_FILE = '/etc/xmasq/xmasq.yaml';

/** The part of the environment that configures. */
export interface ConfigEnvironment {
  readonly NODE_NAME?: string | undefined;
}

/**
 * Reads the configuration file.
 * @param environment NODE_NAME is the default of nodeName (set from spec.nodeName in Kubernetes)
 * @throws FileError that lists every problem as `file:line: field: what is wrong; what is allowed`
 */
export async function loadConfig(file: string, environment: ConfigEnvironment = process.env): Promise<Config> {
  return parseConfig(file, await readText(file, MAX_BYTES), environment);
}

/**
 * As loadConfig, from text.
 * @param file for messages only
 * @throws FileError
 */
export function parseConfig(file: string, text: string, environment: ConfigEnvironment = {}): Config {
  const yaml = new YamlFile(file, text);
  const raw = yaml.parse(configSchema);
  const nodeName = raw.nodeName ?? environment.NODE_NAME;
  const problems = [
    ...relationProblems(raw),
    ...(nodeName === undefined || nodeName === ''
      ? [{ path: ['nodeName'], message: 'is missing; expected it here or in the environment variable NODE_NAME' }]
      : []),
  ];
  if (problems.length > 0 || nodeName === undefined) throw yaml.error(problems);
  return {
    ...raw,
    nodeName,
    featureGates: resolveGates(raw.featureGates),
    clusterState: {
      file: raw.clusterState.file,
      kubernetes: raw.clusterState.kubernetes && {
        kubeconfig: raw.clusterState.kubernetes.kubeconfig,
        serviceAccount: raw.clusterState.kubernetes.serviceAccount,
        antreaNamespace: raw.clusterState.kubernetes.antreaNamespace,
        namespace: raw.clusterState.kubernetes.namespace,
      },
    },
    uplink: { devices: [raw.uplink.device ?? []].flat(), xdp: raw.uplink.xdp },
    ovsdb: { socket: raw.ovsdb.socket, bridge: raw.ovsdb.bridge },
    tunnel: { type: raw.tunnel.type, port: raw.tunnel.port ?? TUNNEL_PORTS[raw.tunnel.type] },
    flowExport: { ...raw.flowExport, files: raw.flowExport.files },
    flowAccounting: {
      address: raw.flowAccounting.address,
      serverName: raw.flowAccounting.serverName,
      files: raw.flowAccounting.files,
      interval: raw.flowAccounting.interval,
    },
    metrics: { address: raw.metrics.address },
  };
}

/** What must hold between fields. */
function relationProblems({
  approvals,
  maps,
  clusterState,
  flowAccounting,
  ...raw
}: RawConfig): { path: string[]; message: string }[] {
  const problems: { path: string[]; message: string }[] = [];
  if (approvals.lease < 2 * approvals.pollInterval) {
    problems.push({
      path: ['approvals', 'lease'],
      message: `is ${approvals.lease}; expected at least twice approvals.pollInterval (${approvals.pollInterval}), else flows lose their approval between two reads`,
    });
  }
  if ((clusterState.file === undefined) === (clusterState.kubernetes === undefined)) {
    const message =
      clusterState.file === undefined
        ? 'names no source; expected file, or kubernetes (kubernetes: {} inside of a cluster)'
        : 'names two sources; expected either file or kubernetes';
    problems.push({ path: ['clusterState'], message });
  }
  if (clusterState.kubernetes?.kubeconfig !== undefined && clusterState.kubernetes.serviceAccount !== undefined) {
    const message = 'names two ways to the API; expected either kubeconfig or serviceAccount';
    problems.push({ path: ['clusterState', 'kubernetes'], message });
  }
  const { FlowAccounting: accounting, FlowExport: records } = resolveGates(raw.featureGates);
  if (accounting && !records) {
    problems.push({
      path: ['featureGates', 'FlowAccounting'],
      message: 'is true; expected FlowExport to be true as well: the records to correct come by it',
    });
  }
  if (accounting && (flowAccounting.address === undefined || flowAccounting.files === undefined)) {
    problems.push({
      path: ['flowAccounting'],
      message: 'lacks address or files; expected both, because the feature gate FlowAccounting is on',
    });
  }
  if (maps.slots < maps.flows) {
    problems.push({
      path: ['maps', 'slots'],
      message: `is ${maps.slots}; expected at least maps.flows (${maps.flows}), as every flow needs a slot`,
    });
  }
  return problems;
}
