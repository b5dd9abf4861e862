import { z } from 'zod';
import { GATE_NAMES, STAGE_TOGGLES } from './feature-gates.ts';
import {
  absolutePath,
  deviceName,
  deviceNames,
  kubernetesNamespace,
  listenAddress,
  loopbackAddress,
  mapping,
  nodeName,
  oneOf,
  seconds,
  text,
  tlsFiles,
  wholeNumber,
  yesOrNo,
} from './fields.ts';

/** Room for the names of maps and links below the pin directory. */
const MAX_PIN_DIRECTORY = 200;
/** As unix-socket.ts. */
const MAX_SOCKET = 80;
/** sun_path of unix(7) without its final zero. */
const MAX_SOCKET_PATH = 107;

/** UDP port of each tunnel type, as IANA assigned and Antrea uses it. */
export const TUNNEL_PORTS = { vxlan: 4789, geneve: 6081 } as const;

/**
 * What the configuration file may hold, with defaults; docs/configuration.md explains each key. Sections that have a
 * default for every key can be left out.
 */
export const configSchema = mapping({
  nodeName: nodeName().optional(),
  featureGates: mapping(
    Object.fromEntries([...GATE_NAMES, ...Object.keys(STAGE_TOGGLES)].map((name) => [name, yesOrNo().optional()])),
  ).default({}),
  uplink: mapping({
    device: deviceNames().optional(),
    xdp: oneOf(['off', 'native']).default('off'),
  }).prefault({}),
  bpffs: absolutePath(MAX_PIN_DIRECTORY).default('/sys/fs/bpf/xmasq'),
  socket: absolutePath(MAX_SOCKET).default('/run/xmasq/xmasq.sock'),
  clusterState: mapping({
    file: absolutePath(4095).optional(),
    kubernetes: mapping({
      kubeconfig: absolutePath(4095).optional(),
      serviceAccount: absolutePath(4095).optional(),
      antreaNamespace: kubernetesNamespace().default('kube-system'),
      namespace: kubernetesNamespace().default('kube-system'),
    }).optional(),
  }),
  ovsdb: mapping({
    socket: absolutePath(MAX_SOCKET_PATH).optional(),
    bridge: deviceName().default('br-int'),
  }).prefault({}),
  tunnel: mapping({
    type: oneOf(['vxlan', 'geneve']).default('geneve'),
    port: wholeNumber(1, 65535).optional(),
  }).prefault({}),
  conntrack: mapping({
    zone: wholeNumber(0, 65535).default(65520),
    zone6: wholeNumber(0, 65535).default(65510),
  }).prefault({}),
  transmitMode: oneOf(['auto', 'masquerade', 'encap']).default('auto'),
  maps: mapping({
    flows: wholeNumber(1024, 1048576).default(65536),
    slots: wholeNumber(1024, 2097152).default(131072),
    approvals: wholeNumber(1024, 1048576).default(65536),
    refusals: wholeNumber(1024, 1048576).default(65536),
  }).prefault({}),
  startHold: seconds(0, 300).default(10),
  approvals: mapping({
    pollInterval: seconds(0.1, 10).default(0.5),
    lease: seconds(1, 60).default(5),
  }).prefault({}),
  flowExport: mapping({
    address: loopbackAddress().default('127.0.0.1:14740'),
    certificates: absolutePath(4000).default('/var/lib/xmasq/flow-export'),
    files: tlsFiles().optional(),
    records: wholeNumber(1024, 1048576).default(65536),
  }).prefault({}),
  flowAccounting: mapping({
    address: text('host:port, as flow-aggregator.flow-aggregator.svc:14739', (value) =>
      /^.+:[0-9]{1,5}$/.test(value),
    ).optional(),
    serverName: text('a DNS name', (value) => /^[A-Za-z0-9.-]{1,253}$/.test(value)).optional(),
    files: tlsFiles().optional(),
    interval: seconds(1, 3600).default(5),
  }).prefault({}),
  metrics: mapping({ address: listenAddress().optional() }).default({}),
  log: mapping({ level: oneOf(['fatal', 'error', 'warn', 'info', 'debug', 'trace']).default('info') }).prefault({}),
});

/** The file as read, defaults filled in. */
export type RawConfig = z.output<typeof configSchema>;
