/** Pods that two sources tell of, as one. */
import type { Pod, PodEventSink } from '../grpc/backend.ts';
import { Serial } from '../grpc/serial.ts';

export interface PodSourceOptions {
  /**
   * The sink gets no snapshot, and so loses no pod that an earlier start left, before every required source has given one.
   * Default false: what nobody may ever use keeps nobody waiting.
   */
  readonly required?: boolean;
}

/** One source's pods, by container ID. */
interface Source {
  readonly required: boolean;
  readonly pods: Map<string, Pod>;
  synced: boolean;
}

/**
 * The union of several sources by container ID. Of two that tell of one container the source made first is believed, also that
 * it is gone. Different containers that claim one interface or address are all passed on, in the order in which they appeared:
 * Endpoints lets the later one win.
 */
export class PodSources {
  readonly #sink: PodEventSink;
  readonly #serial = new Serial();
  readonly #sources: Source[] = [];
  /** What the sink was told. */
  readonly #told = new Map<string, Pod>();
  /** Containers that a source has ended, though a lesser one still tells of them; their IDs are not used again. */
  readonly #ended = new Set<string>();
  /** The sink has had a snapshot, and rejected nothing since. */
  #inForce = false;

  constructor(sink: PodEventSink) {
    this.#sink = sink;
  }

  /** A sink for one source. The order in which they are made is the order in which they are believed. */
  source({ required = false }: PodSourceOptions = {}): PodEventSink {
    const source: Source = { required, pods: new Map(), synced: false };
    this.#sources.push(source);
    const change = (work: () => Promise<void>): Promise<void> => this.#serial.run(work);
    return {
      snapshot: (pods) => change(() => this.#snapshot(source, pods)),
      added: (pod) => change(() => this.#put(source, pod)),
      changed: (pod) => change(() => this.#put(source, pod)),
      removed: (pod) => change(() => this.#remove(source, pod.containerId)),
    };
  }

  /** All pods told of, for tests and diagnostics. */
  get pods(): readonly Pod[] {
    return [...this.#told.values()];
  }

  async #snapshot(source: Source, pods: readonly Pod[]): Promise<void> {
    const next = new Map(pods.map((pod) => [pod.containerId, pod]));
    const gone = [...source.pods.keys()].filter((id) => !next.has(id));
    source.pods.clear();
    for (const [id, pod] of next) source.pods.set(id, pod);
    source.synced = true;
    for (const id of gone) this.#noteEnd(source, id);
    for (const id of next.keys()) this.#noteLife(source, id);
    // The sink may have lost or never had something: all of it again.
    this.#inForce = false;
    await this.#bring([...gone, ...next.keys()]);
  }

  async #put(source: Source, pod: Pod): Promise<void> {
    source.pods.set(pod.containerId, pod);
    this.#noteLife(source, pod.containerId);
    await this.#bring([pod.containerId]);
  }

  async #remove(source: Source, id: string): Promise<void> {
    source.pods.delete(id);
    this.#noteEnd(source, id);
    await this.#bring([id]);
  }

  /** A source that is believed before all others that tell of the container has ended it. */
  #noteEnd(source: Source, id: string): void {
    const others = this.#sources.filter((other) => other.pods.has(id));
    if (others.length === 0) this.#ended.delete(id);
    else if (others.every((other) => this.#sources.indexOf(other) > this.#sources.indexOf(source))) this.#ended.add(id);
  }

  /** A source that nobody is believed before has it: it lives, whatever was said. */
  #noteLife(source: Source, id: string): void {
    if (source === this.#sources[0]) this.#ended.delete(id);
  }

  #believed(id: string): Pod | undefined {
    if (this.#ended.has(id)) return undefined;
    return this.#sources.find(({ pods }) => pods.has(id))?.pods.get(id);
  }

  /** Brings the sink in line; `ids` are the containers that may be different. */
  async #bring(ids: readonly string[]): Promise<void> {
    if (!this.#inForce && this.#sources.every(({ required, synced }) => synced || !required)) {
      await this.#bringAll(ids);
      return;
    }
    // Removals first: an address or an interface may have gone to another pod.
    for (const id of ids) if (this.#believed(id) === undefined) await this.#tell(id);
    for (const id of ids) if (this.#believed(id) !== undefined) await this.#tell(id);
  }

  async #bringAll(ids: readonly string[]): Promise<void> {
    // Those that were told before keep their places: who comes later wins.
    const all = new Set([...this.#told.keys(), ...this.#sources.flatMap(({ pods }) => [...pods.keys()]), ...ids]);
    const pods = [...all].flatMap((id) => this.#believed(id) ?? []);
    await this.#sink.snapshot(pods);
    this.#told.clear();
    for (const pod of pods) this.#told.set(pod.containerId, pod);
    this.#inForce = true;
  }

  async #tell(id: string): Promise<void> {
    const before = this.#told.get(id);
    const pod = this.#believed(id);
    try {
      if (pod === undefined) {
        if (before !== undefined) await this.#sink.removed(before);
        this.#told.delete(id);
        return;
      }
      if (before === undefined) await this.#sink.added(pod);
      else if (JSON.stringify(before) !== JSON.stringify(pod)) await this.#sink.changed(pod, before);
      this.#told.set(id, pod);
    } catch (error) {
      this.#inForce = false;
      throw error;
    }
  }
}
