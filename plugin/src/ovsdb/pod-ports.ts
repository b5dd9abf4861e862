/** Which pods the bridge's ports are, and which rows cannot be understood. */
import type { Log } from '../dataplane/ports.ts';
import type { Throttle } from '../dataplane/throttle.ts';
import type { Pod } from '../grpc/backend.ts';
import { validatePod } from '../grpc/pod-validation.ts';
import { errorMessage } from '../util/errors.ts';
import { PORT_TYPES, type BridgePort } from './bridge.ts';
import type { Row } from './replica.ts';

/** The interface that Kubernetes knows of a pod; `if-dev` names others (secondary networks). */
const PRIMARY_DEVICE = 'eth0';
const KNOWN_TYPES: ReadonlySet<string> = new Set(PORT_TYPES);

/** Why a port is no pod, though it should be one or be known as something else. */
export const SKIP_CAUSES = ['unknown_type', 'no_type', 'invalid', 'duplicate', 'too_many'] as const;
export type SkipCause = (typeof SKIP_CAUSES)[number];

/** A pod and its port. */
export interface PodPort {
  readonly pod: Pod;
  /** VLAN of the port; undefined: none. */
  readonly tag: number | undefined;
}

interface Skip {
  readonly cause: SkipCause;
  /** For the log. */
  readonly why: string;
}

/** Reads pods of ports. What was read of a row is kept for as long as the row is: a change costs what changed. */
export class PodPorts {
  readonly #bridge: string;
  readonly #maxPods: number;
  readonly #log: Log;
  readonly #throttle: Throttle;
  readonly #read = new WeakMap<Row, Pod | Skip | undefined>();
  /** Rows skipped for what other rows say; told once each. */
  readonly #told = new WeakSet<Row>();
  readonly #total = new Map<SkipCause, number>(SKIP_CAUSES.map((cause) => [cause, 0]));
  #skippedNow = 0;

  /**
   * @param bridge its name: it has a port of that name, which says nothing of itself
   * @param maxPods further ones are skipped
   */
  constructor(bridge: string, maxPods: number, log: Log, throttle: Throttle) {
    this.#bridge = bridge;
    this.#maxPods = maxPods;
    this.#log = log;
    this.#throttle = throttle;
  }

  /** Rows skipped so far by cause; a row counts again when it has changed. */
  get skippedTotal(): ReadonlyMap<SkipCause, number> {
    return this.#total;
  }

  /** Rows that the last `read` skipped. */
  get skippedNow(): number {
    return this.#skippedNow;
  }

  /** The pods by container ID. Of two ports of one container the one told last counts. */
  read(ports: readonly BridgePort[]): ReadonlyMap<string, PodPort> {
    const pods = new Map<string, PodPort>();
    let skipped = 0;
    // Backwards: of two ports of one container the later one is the newer.
    for (const port of ports.toReversed()) {
      const reading = this.#readPort(port);
      if (reading === undefined) continue;
      const skip = 'cause' in reading ? reading : collision(reading, pods, this.#maxPods);
      if (skip !== undefined) {
        skipped++;
        this.#tell(port, skip);
      } else if (!('cause' in reading)) {
        pods.set(reading.containerId, { pod: reading, tag: port.tag });
      }
    }
    this.#skippedNow = skipped;
    // In the order in which they were told: Endpoints lets the later of two rivals win.
    return new Map([...pods].toReversed());
  }

  /** undefined: a port that is no pod's, and need not be. */
  #readPort(port: BridgePort): Pod | Skip | undefined {
    if (this.#read.has(port.row)) return this.#read.get(port.row);
    const reading = readPod(port, this.#bridge);
    this.#read.set(port.row, reading);
    return reading;
  }

  #tell(port: BridgePort, { cause, why }: Skip): void {
    if (this.#told.has(port.row)) return;
    this.#told.add(port.row);
    this.#total.set(cause, (this.#total.get(cause) ?? 0) + 1);
    if (this.#throttle.allows(`skip ${cause}`)) {
      this.#log.warn({ port: port.name.slice(0, 40), cause, why }, 'a port of the bridge is skipped');
    }
  }
}

function collision(pod: Pod, pods: ReadonlyMap<string, PodPort>, maxPods: number): Skip | undefined {
  const same = pods.get(pod.containerId);
  if (same !== undefined) return { cause: 'duplicate', why: `port ${same.pod.ifName} is of the same container` };
  return pods.size >= maxPods
    ? { cause: 'too_many', why: `there are ${maxPods} pods, and that is all XMasq can take` }
    : undefined;
}

function readPod(port: BridgePort, bridge: string): Pod | Skip | undefined {
  const { type, name, externalIds } = port;
  if (type === '') return name === bridge ? undefined : { cause: 'no_type', why: 'it has no antrea-type' };
  if (!KNOWN_TYPES.has(type)) return { cause: 'unknown_type', why: `antrea-type ${type.slice(0, 40)} is not known` };
  if (type !== 'container') return undefined;
  if ((externalIds.get('if-dev') ?? PRIMARY_DEVICE) !== PRIMARY_DEVICE) return undefined;
  const key = (of: string): string => externalIds.get(of) ?? '';
  try {
    return validatePod(
      {
        namespace: key('pod-namespace'),
        name: key('pod-name'),
        containerId: key('container-id'),
        ifName: name,
        ips: key('ip-address')
          .split(',')
          .map((ip) => ip.trim())
          .filter((ip) => ip !== ''),
        mac: key('attached-mac').trim(),
      },
      `port ${name.slice(0, 40)}`,
    );
  } catch (error) {
    return { cause: 'invalid', why: errorMessage(error) };
  }
}
