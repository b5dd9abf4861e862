import { openPinned } from '../bpf/fd.ts';
import { MapType, mapInfo } from '../bpf/info.ts';
import { ArrayMap } from '../bpf/map.ts';
import { maps } from '../gen/layouts.ts';
import { LAYOUT_VERSION, type DataPlaneConfig } from './layout.ts';

/** struct xmasq_config begins with these in every version: two words, host byte order. */
const LAYOUT_VERSION_AT = 0;
const FLAGS_AT = 4;
const COMMON_BYTES = 8;
/** Of every array map. */
const KEY_BYTES = 4;

/**
 * The map `config` of a data plane of any version, as far as all versions agree on it: enough to take the node out of the fast
 * path. Owns the map's descriptor.
 */
export class CommonConfig {
  readonly #map: ArrayMap<Buffer>;

  private constructor(map: ArrayMap<Buffer>) {
    this.#map = map;
  }

  /**
   * @param path its pin, which exists
   * @returns undefined for a map that is none of any version
   */
  static open(path: string): CommonConfig | undefined {
    using fd = openPinned(path);
    const { type, keySize, valueSize } = mapInfo(fd.fd);
    if (type !== MapType.ARRAY || keySize !== KEY_BYTES || valueSize < COMMON_BYTES) return undefined;
    const bytes = { size: valueSize, encode: (value: Buffer) => value, decode: (value: Buffer) => Buffer.from(value) };
    return new CommonConfig(new ArrayMap({ path }, bytes));
  }

  /** 0: nothing was ever written. */
  get layoutVersion(): number {
    return this.#map.get(0).readUInt32LE(LAYOUT_VERSION_AT);
  }

  /** Bits of ConfigFlag, of which other versions have ADMIT and SEND for certain. */
  get flags(): number {
    return this.#map.get(0).readUInt32LE(FLAGS_AT);
  }

  /** The whole of it; undefined: of another version. */
  get whole(): DataPlaneConfig | undefined {
    const bytes = this.#map.get(0);
    const codec = maps.config.value;
    return this.layoutVersion === LAYOUT_VERSION && bytes.length === codec.size ? codec.decode(bytes) : undefined;
  }

  /** Sets and clears bits; everything else stays as it is. */
  setFlags(set: number, clear = 0): void {
    const bytes = this.#map.get(0);
    const before = bytes.readUInt32LE(FLAGS_AT);
    bytes.writeUInt32LE(((before & ~clear) | set) >>> 0, FLAGS_AT);
    this.#map.set(0, bytes);
  }

  [Symbol.dispose](): void {
    this.#map.close();
  }
}
