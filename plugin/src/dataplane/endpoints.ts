/**
 * The pods of this node: which of them the programs know, under which number, and on which device. What is wanted comes as
 * pod events; what is there survives in the maps, the attachments and the notes.
 */
import type { EndpointInfo, Pod, PodEventSink, PodName } from '../grpc/backend.ts';
import type { PodExclusion } from '../exclusion/exclusions.ts';
import { addressOfFamily } from '../netlink/ip.ts';
import type { Link } from '../netlink/rtnetlink.ts';
import { NO_ADDRESS } from '../bpf/address.ts';
import { errorMessage } from '../util/errors.ts';
import { isDeviceGone, type Attacher } from './attach.ts';
import type { Degradations } from './degradations.ts';
import { IdPool } from './ids.ts';
import { EndpointFlag, MAX_ENDPOINTS, reasonNames, type Endpoint } from './layout.ts';
import type { Notes } from './notes.ts';
import { SECOND, type Clock, type Log } from './ports.ts';
import type { TcProgram } from './programs.ts';
import type { Tables } from './tables.ts';

/** What has to do with devices, to be tried without any. */
export interface LinkSource {
  byName(name: string): Link | undefined;
  all(): readonly Link[];
}

export interface EndpointsOptions {
  readonly tables: Pick<Tables, 'endpoints' | 'endpointByIfindex' | 'endpointByAddr'>;
  readonly attacher: Attacher;
  readonly programs: { readonly pod_egress: TcProgram; readonly pod_ingress: TcProgram };
  readonly links: LinkSource;
  readonly notes: Notes;
  readonly degradations: Degradations;
  readonly log: Log;
  readonly now: Clock;
}

/** Events of a pod and of its interface come by two ways: what is over within this time is no trouble. */
const PATIENCE_NS = 3n * SECOND;

/** The pod's addresses as its entry has them: the first of each family, '' for a family that it lacks. */
type PodAddresses = Pick<Endpoint, 'addr4' | 'addr6'>;

/** A pod that has, or should have, a number. */
interface Wanted {
  readonly pod: Pod;
  readonly addresses: PodAddresses;
  /** Later events win where two pods claim one address or device. */
  readonly sequence: number;
  /** Why it has no number; '' if it has one, or has not been tried. */
  problem: string;
  /** Since when it has none. */
  since: bigint;
  /** Its interface does not exist: not tried again before there is news of it. */
  waiting: boolean;
}

/** A number in use. */
interface Active {
  readonly id: number;
  readonly pod: Pod;
  readonly ifindex: number;
  readonly addresses: PodAddresses;
}

function podAddresses({ ips }: Pod): PodAddresses {
  return { addr4: addressOfFamily(ips, 4) ?? NO_ADDRESS, addr6: addressOfFamily(ips, 6) ?? NO_ADDRESS };
}

function listOf({ addr4, addr6 }: PodAddresses): string[] {
  return [addr4, addr6].filter((address) => address !== NO_ADDRESS);
}

function sameAddresses(a: PodAddresses, b: PodAddresses): boolean {
  return a.addr4 === b.addr4 && a.addr6 === b.addr6;
}

/** Do they claim the same address? */
function overlap(a: PodAddresses, b: PodAddresses): boolean {
  return listOf(a).some((address) => address === b.addr4 || address === b.addr6);
}

function macBytes(mac: string): Uint8Array {
  return Uint8Array.from(mac.split(':'), (byte) => Number.parseInt(byte, 16));
}

function macText(mac: Uint8Array): string {
  return Array.from(mac, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** A pod as a note; notes are read by the next start. */
function parseNote(text: string | undefined): Pod | undefined {
  if (text === undefined) return undefined;
  try {
    const { namespace, name, containerId, ifName, ips, mac } = JSON.parse(text) as Partial<Pod>;
    if (!namespace || !name || !containerId || !ifName || !Array.isArray(ips) || !mac) return undefined;
    return { namespace, name, containerId, ifName, ips, mac };
  } catch {
    return undefined;
  }
}

function samePod(a: Pod, b: Pod): boolean {
  return (
    a.containerId === b.containerId &&
    a.ifName === b.ifName &&
    a.mac === b.mac &&
    sameAddresses(podAddresses(a), podAddresses(b))
  );
}

const name = (pod: PodName): string => `${pod.namespace}/${pod.name}`;

/** Brings the programs' knowledge of pods in line with the pod events. */
export class Endpoints implements PodEventSink {
  readonly #o: EndpointsOptions;
  readonly #wanted = new Map<string, Wanted>();
  readonly #active = new Map<string, Active>();
  readonly #ifindexByAddress = new Map<string, number>();
  readonly #ids: IdPool;
  #sequence = 0;
  #exclusions: ReadonlyMap<string, PodExclusion> = new Map();

  /** Takes over what an earlier start left, as far as the devices are still there; the rest is removed. */
  constructor(options: EndpointsOptions) {
    this.#o = options;
    const epochs = new Map<number, number>();
    const used: number[] = [];
    const devices = new Map(options.links.all().map((link) => [link.ifindex, link.name]));
    for (let id = 1; id < MAX_ENDPOINTS; id++) {
      const entry = options.tables.endpoints.get(id);
      epochs.set(id, entry.epoch);
      if ((entry.flags & EndpointFlag.PRESENT) === 0) continue;
      if (this.#adopt(id, entry, devices)) used.push(id);
    }
    this.#ids = new IdPool(MAX_ENDPOINTS - 1, used, (id) => epochs.get(id) ?? 0);
    this.#dropStaleMappings();
    for (const { program, ifindex } of options.attacher.list()) {
      const known = [...this.#active.values()].some((active) => active.ifindex === ifindex);
      if (program.startsWith('pod_') && !known) options.attacher.detach(program, ifindex);
    }
  }

  /** Pods with a number. */
  get count(): number {
    return this.#active.size;
  }

  async snapshot(pods: readonly Pod[]): Promise<void> {
    const ids = new Set(pods.map((pod) => pod.containerId));
    for (const id of [...this.#wanted.keys()]) if (!ids.has(id)) this.#unwant(id);
    for (const pod of pods) this.#want(pod);
    this.reconcile();
    return Promise.resolve();
  }

  async added(pod: Pod): Promise<void> {
    this.#want(pod);
    this.reconcile();
    return Promise.resolve();
  }

  async changed(pod: Pod): Promise<void> {
    return this.added(pod);
  }

  async removed(pod: Pod): Promise<void> {
    this.#unwant(pod.containerId);
    this.reconcile();
    return Promise.resolve();
  }

  /** A device is gone: its pod loses its number at once. */
  linkDeleted(ifindex: number): void {
    for (const active of [...this.#active.values()]) {
      if (active.ifindex === ifindex) this.#deactivate(active, 'its interface was deleted');
    }
  }

  /** A device is new or was renamed: a pod may have waited for it. */
  linkAppeared(device: string): void {
    for (const wanted of this.#wanted.values()) {
      if (wanted.pod.ifName === device && !this.#active.has(wanted.pod.containerId)) {
        wanted.waiting = false;
        this.#tryActivate(wanted);
        this.#report(wanted);
      }
    }
  }

  /**
   * Tries again what could not be done, and notices attachments that somebody else removed. Every few seconds.
   * @param present the node's devices, if somebody has just asked for them
   */
  verify(present: ReturnType<LinkSource['all']> = this.#o.links.all()): void {
    const { attacher, programs, log } = this.#o;
    const devices = new Map(present.map((link) => [link.ifindex, link.name]));
    for (const active of [...this.#active.values()]) {
      if (devices.get(active.ifindex) !== active.pod.ifName) {
        this.#deactivate(active, 'its interface is gone');
        continue;
      }
      for (const program of [programs.pod_egress, programs.pod_ingress]) {
        if (attacher.position(program, active.ifindex) !== 'absent') continue;
        log.warn({ pod: name(active.pod), program: program.name }, 'was detached by somebody: attaching it again');
        this.#deactivate(active, `${program.name} was detached by somebody`);
        break;
      }
    }
    for (const wanted of this.#wanted.values()) wanted.waiting = false;
    this.reconcile();
  }

  /** Brings everything in line with the wanted pods; trouble with one pod does not stop the others. */
  reconcile(): void {
    for (const active of [...this.#active.values()]) {
      const wanted = this.#wanted.get(active.pod.containerId);
      if (wanted === undefined || !samePod(wanted.pod, active.pod)) this.#deactivate(active, '');
    }
    for (const wanted of this.#wanted.values()) {
      if (!this.#active.has(wanted.pod.containerId) && !wanted.waiting) this.#tryActivate(wanted);
    }
    for (const wanted of this.#wanted.values()) this.#report(wanted);
  }

  /** The pod with that name and its number; undefined if it has none. */
  find(
    pod: PodName,
  ): { readonly id: number; readonly ifindex: number; readonly addresses: readonly string[] } | undefined {
    for (const active of this.#active.values()) {
      if (active.pod.namespace !== pod.namespace || active.pod.name !== pod.name) continue;
      return { id: active.id, ifindex: active.ifindex, addresses: listOf(active.addresses) };
    }
    return undefined;
  }

  /** True for a pod that events have told of, with a number or without. */
  knows(pod: PodName): boolean {
    for (const wanted of this.#wanted.values()) {
      if (wanted.pod.namespace === pod.namespace && wanted.pod.name === pod.name) return true;
    }
    return false;
  }

  /** Devices of all pods with a number, by their address. */
  get addresses(): ReadonlyMap<string, number> {
    return this.#ifindexByAddress;
  }

  /** Pods by their device. */
  podsByIfindex(): Map<number, Pod> {
    return new Map([...this.#active.values()].map((active) => [active.ifindex, active.pod]));
  }

  /** @param flows number of flows by endpoint id */
  list(flows: ReadonlyMap<number, number>): EndpointInfo[] {
    return [...this.#wanted.values()].map(({ pod, problem }) => {
      const active = this.#active.get(pod.containerId);
      return {
        namespace: pod.namespace,
        pod: pod.name,
        containerId: pod.containerId,
        ifName: pod.ifName,
        ifindex: active?.ifindex ?? this.#o.links.byName(pod.ifName)?.ifindex ?? 0,
        ips: pod.ips,
        mac: pod.mac,
        attached: active !== undefined,
        ...this.#exclusionInfo(pod),
        problem: active === undefined ? problem : '',
        flows: active === undefined ? 0 : (flows.get(active.id) ?? 0),
        id: active?.id ?? 0,
        epoch: active === undefined ? 0 : this.#o.tables.endpoints.get(active.id).epoch,
      };
    });
  }

  /**
   * Which pods are never accelerated. Their flows end at once, or may begin within the second.
   * @param exclusions by `namespace/name`
   * @param complete false: others may be excluded, too; what an earlier start excluded stays so
   */
  setExclusions(exclusions: ReadonlyMap<string, PodExclusion>, complete = true): void {
    this.#exclusions = exclusions;
    for (const { id, pod } of this.#active.values()) {
      const entry = this.#o.tables.endpoints.get(id);
      const excluded = this.#reasonOf(pod);
      if (entry.excluded === excluded || (excluded === 0 && !complete)) continue;
      // A new epoch, too: what was learned before must not come back when the cause goes.
      this.#o.tables.endpoints.set(id, { ...entry, excluded, epoch: (entry.epoch + 1) >>> 0 });
      this.#o.log.info({ pod: name(pod), reason: reasonNames[excluded] }, excluded === 0 ? 'included' : 'excluded');
    }
  }

  #reasonOf(pod: Pod): number {
    return this.#exclusions.get(name(pod))?.reason ?? 0;
  }

  #exclusionInfo(pod: Pod): Pick<EndpointInfo, 'exclusion'> {
    const exclusion = this.#exclusions.get(name(pod));
    if (exclusion === undefined) return {};
    return { exclusion: { reason: exclusion.reason, detail: exclusion.detail } };
  }

  #add(active: Active): void {
    this.#active.set(active.pod.containerId, active);
    for (const address of listOf(active.addresses)) this.#ifindexByAddress.set(address, active.ifindex);
  }

  #want(pod: Pod): void {
    const before = this.#wanted.get(pod.containerId);
    if (before !== undefined && samePod(before.pod, pod)) {
      this.#wanted.set(pod.containerId, { ...before, pod, waiting: false });
      return;
    }
    const since = this.#o.now();
    const sequence = ++this.#sequence;
    this.#wanted.set(pod.containerId, {
      pod,
      addresses: podAddresses(pod),
      sequence,
      problem: '',
      since,
      waiting: false,
    });
  }

  #unwant(containerId: string): void {
    this.#wanted.delete(containerId);
    this.#o.degradations.clear(`pod-${containerId}`);
  }

  /** Takes over a number of an earlier start. @returns false where its device is another now, or gone */
  #adopt(id: number, entry: Endpoint, devices: ReadonlyMap<number, string>): boolean {
    const { notes, attacher, programs, log } = this.#o;
    const pod = parseNote(notes.get(`endpoint-${id}`));
    const good =
      pod !== undefined &&
      devices.get(entry.ifindex) === pod.ifName &&
      sameAddresses(podAddresses(pod), entry) &&
      pod.mac === macText(entry.mac) &&
      !this.#active.has(pod.containerId);
    if (good) {
      try {
        // Where the program is another now, this puts it in the old one's place.
        attacher.attach(programs.pod_egress, entry.ifindex);
        attacher.attach(programs.pod_ingress, entry.ifindex);
        this.#add({ id, pod, ifindex: entry.ifindex, addresses: podAddresses(pod) });
        this.#want(pod);
        return true;
      } catch (error) {
        if (!isDeviceGone(error)) throw error;
      }
    }
    log.info({ id, pod: pod === undefined ? 'unknown' : name(pod) }, 'endpoint of an earlier start is gone');
    this.#invalidate(id);
    notes.delete(`endpoint-${id}`);
    return false;
  }

  /** Address and device entries that lead to no number, or to another pod's. */
  #dropStaleMappings(): void {
    const { endpointByAddr, endpointByIfindex } = this.#o.tables;
    const byId = new Map([...this.#active.values()].map((active) => [active.id, active]));
    for (const [address, id] of [...endpointByAddr.entries()]) {
      const active = byId.get(id);
      if (active === undefined || !listOf(active.addresses).includes(address)) endpointByAddr.delete(address);
    }
    for (const [ifindex, id] of [...endpointByIfindex.entries()]) {
      if (byId.get(id)?.ifindex !== ifindex) endpointByIfindex.delete(ifindex);
    }
    for (const { id, addresses, ifindex } of byId.values()) {
      endpointByIfindex.set(ifindex, id);
      for (const address of listOf(addresses)) endpointByAddr.set(address, id);
    }
  }

  /** From now on no flow of this number is valid, and none is admitted. */
  #invalidate(id: number): void {
    const { endpoints } = this.#o.tables;
    const entry = endpoints.get(id);
    endpoints.set(id, { ...entry, flags: 0, epoch: (entry.epoch + 1) >>> 0 });
  }

  #deactivate(active: Active, why: string): void {
    const { tables, attacher, notes, log } = this.#o;
    const { id, pod, ifindex, addresses } = active;
    // First what makes the programs stop, then the ways to it, the hooks last.
    this.#invalidate(id);
    for (const address of listOf(addresses)) {
      if (tables.endpointByAddr.get(address) === id) tables.endpointByAddr.delete(address);
      if (this.#ifindexByAddress.get(address) === ifindex) this.#ifindexByAddress.delete(address);
    }
    if (tables.endpointByIfindex.get(ifindex) === id) tables.endpointByIfindex.delete(ifindex);
    this.#active.delete(pod.containerId);
    notes.delete(`endpoint-${id}`);
    for (const program of ['pod_egress', 'pod_ingress'] as const) {
      try {
        attacher.detach(program, ifindex);
      } catch (error) {
        if (!isDeviceGone(error)) log.warn({ err: error, pod: name(pod), program }, 'could not be detached');
      }
    }
    this.#ids.release(id);
    const wanted = this.#wanted.get(pod.containerId);
    if (wanted !== undefined) {
      wanted.problem = why;
      wanted.since = this.#o.now();
    }
    log.info({ pod: name(pod), device: pod.ifName, id, why }, 'pod is no longer an endpoint');
  }

  #tryActivate(wanted: Wanted): void {
    const { pod } = wanted;
    try {
      wanted.problem = this.#activate(wanted);
    } catch (error) {
      wanted.waiting = isDeviceGone(error);
      wanted.problem = wanted.waiting
        ? `interface ${pod.ifName} does not exist`
        : `the programs could not be attached: ${errorMessage(error)}`;
      if (!wanted.waiting) this.#o.log.warn({ err: error, pod: name(pod) }, 'pod could not be made an endpoint');
    }
  }

  /** @returns why it could not be done; '': it is */
  #activate(wanted: Wanted): string {
    const { tables, attacher, programs, links, notes, log } = this.#o;
    const { pod, addresses } = wanted;
    const list = listOf(addresses);
    if (list.length === 0) return 'it has no IP address';
    const rival = [...this.#wanted.values()].find(
      (other) =>
        other.sequence > wanted.sequence && (other.pod.ifName === pod.ifName || overlap(other.addresses, addresses)),
    );
    if (rival !== undefined) return `${name(rival.pod)} claims its address or interface`;
    const link = links.byName(pod.ifName);
    if (link === undefined) {
      wanted.waiting = true;
      return `interface ${pod.ifName} does not exist`;
    }
    for (const other of [...this.#active.values()]) {
      if (overlap(other.addresses, addresses) || other.ifindex === link.ifindex) {
        this.#deactivate(other, `${name(pod)} claims its address or interface`);
      }
    }
    const id = this.#ids.take();
    if (id === undefined) return `all ${MAX_ENDPOINTS - 1} endpoint numbers of this node are taken`;
    try {
      const epoch = (tables.endpoints.get(id).epoch + 1) >>> 0;
      const excluded = this.#reasonOf(pod);
      const mac = macBytes(pod.mac);
      const entry = { ifindex: link.ifindex, ...addresses, mac, flags: 0, epoch, excluded };
      tables.endpoints.set(id, entry);
      // Not present until every packet of the pod passes the hooks: otherwise it could forge a key.
      attacher.attach(programs.pod_egress, link.ifindex);
      attacher.attach(programs.pod_ingress, link.ifindex);
      notes.set(`endpoint-${id}`, JSON.stringify(pod));
      tables.endpoints.set(id, { ...entry, flags: EndpointFlag.PRESENT });
      tables.endpointByIfindex.set(link.ifindex, id);
      for (const address of list) tables.endpointByAddr.set(address, id);
    } catch (error) {
      this.#deactivate({ id, pod, ifindex: link.ifindex, addresses }, '');
      throw error;
    }
    this.#add({ id, pod, ifindex: link.ifindex, addresses });
    log.info({ pod: name(pod), device: pod.ifName, addresses: list, id }, 'pod is an endpoint');
    return '';
  }

  #report({ pod, problem, since, waiting }: Wanted): void {
    const { degradations, now } = this.#o;
    const failed = !this.#active.has(pod.containerId) && !(waiting && now() - since < PATIENCE_NS);
    degradations.put(
      `pod-${pod.containerId}`,
      failed
        ? {
            what: `pod ${name(pod)} is not accelerated: ${problem}`,
            where: `interface ${pod.ifName}`,
            action: 'it is tried again by itself; if it stays, compare the pod events with the interfaces of the node',
          }
        : undefined,
    );
  }
}
