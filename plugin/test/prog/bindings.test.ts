import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bytesCodec, u16Codec, u32Codec, u64Codec } from '../../src/bpf/codec.ts';
import { BpfError, ClosedError, isENOENT, LayoutMismatchError, VerifierError } from '../../src/bpf/errors.ts';
import { ArrayMap, HashMap } from '../../src/bpf/map.ts';
import { BpfObject } from '../../src/bpf/object.ts';
import { PerCpuArray, possibleCpus } from '../../src/bpf/percpu.ts';
import { BPFFS, ensureBpffs, openPinnedProgram, programInfo, unpin } from '../../src/bpf/pins.ts';
import { testRun } from '../../src/bpf/testrun.ts';
import { compileFixture } from './fixtures/compile.ts';

const TC_ACT_UNSPEC = -1;
const frame = Buffer.from(Array.from({ length: 60 }, (_, i) => i));

let directory: string;
let objectPath: string;
let pins: string;

function u32(value: number): Buffer {
  return u32Codec.encode(value);
}

function thrownBy(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

/** Opens the fixture with its maps pinned in `place`. */
function openPinning(place: string, ...maps: string[]): BpfObject {
  const object = BpfObject.open(objectPath);
  for (const map of maps) object.setPinPath(map, join(place, map));
  return object;
}

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'xb-bindings-'));
  objectPath = compileFixture('bindings', directory);
  ensureBpffs();
  pins = join(BPFFS, `xb-${process.pid}`);
  mkdirSync(pins);
});

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
  rmSync(pins, { recursive: true, force: true });
});

describe('objects', () => {
  test('list what they contain before anything is loaded', () => {
    using object = BpfObject.open(objectPath);
    expect(object.mapNames()).toEqual(expect.arrayContaining(['flows', 'ports', 'settings', 'counters', 'events']));
    expect(object.programNames()).toEqual(['count_packets', 'pass', 'refused']);
    expect(() => object.program('pass')).toThrow(/is open, must be loaded/);
    expect(() => object.setAutoload('nonesuch', true)).toThrow(/no program nonesuch in .*; it has count_packets, pass/);
  });

  test('report a missing and a broken file', () => {
    expect(isENOENT(thrownBy(() => BpfObject.open(join(directory, 'missing.o'))))).toBe(true);
    const error = thrownBy(() => BpfObject.open(import.meta.filename)) as BpfError;
    expect(error).toBeInstanceOf(BpfError);
    expect(error.libbpfLog).toContain('ELF');
  });

  test('are unusable, not dangerous, after close', () => {
    const object = BpfObject.open(objectPath);
    object.close();
    object.close();
    expect(() => object.load()).toThrow(ClosedError);
    expect(() => object.mapFd('flows')).toThrow(ClosedError);
  });

  test('write constants before loading', () => {
    using object = BpfObject.open(objectPath);
    object.setRodata('verdict_mark', u32(40));
    object.setRodata('magic', Buffer.concat([u64Codec.encode(0n), u64Codec.encode(2n)]));
    expect(() => object.setRodata('verdict_mark', Buffer.alloc(8))).toThrow(/8 bytes, expected 4/);
    expect(() => object.setRodata('nonesuch', u32(1))).toThrow(/no such variable/);
    object.load();
    expect(testRun(object.program('count_packets').fd, { data: frame }).ctxOut.mark).toBe(42);
  });

  test('pin programs and find them again', () => {
    const path = join(pins, 'programs/pass');
    const object = BpfObject.open(objectPath);
    object.load();
    object.pinProgram('pass', path);
    const { id, tag } = programInfo(object.program('pass').fd);
    object.close();
    using program = openPinnedProgram(path);
    expect(programInfo(program.fd)).toMatchObject({ id, tag, name: 'pass' });
    // Its four maps, and .rodata, which libbpf binds to every program.
    expect(programInfo(program.fd).mapIds).toHaveLength(5);
    expect(programInfo(program.fd).verifiedInstructions).toBeGreaterThan(10);
    expect([unpin(path), unpin(path)]).toEqual([true, false]);
    expect(isENOENT(thrownBy(() => openPinnedProgram(path)))).toBe(true);
  });

  test('a refused program gives a short message and the whole log, and leaves nothing behind', () => {
    const place = join(pins, 'refused');
    using object = openPinning(place, 'flows');
    object.setAutoload('refused', true);
    const error = thrownBy(() => object.load()) as VerifierError;
    expect(error).toBeInstanceOf(VerifierError);
    expect(error).toMatchObject({ code: 'EACCES', program: 'refused' });
    expect(error.message).toMatch(/program refused: EACCES \(invalid access to packet/);
    expect(error.message.length).toBeLessThan(500);
    expect(error.verifierLog).toContain('processed 2 insns');
    expect(readdirSync(place)).toEqual([]);
    expect(() => object.load()).toThrow(/is failed/);
  });

  test('hundreds of load and close cycles leave no descriptors', () => {
    const descriptors = (): number => readdirSync('/proc/self/fd').length;
    const before = descriptors();
    for (let i = 0; i < 50; i++) {
      using object = BpfObject.open(objectPath);
      object.load();
    }
    expect(descriptors()).toBe(before);
  });
});

describe('pinned maps', () => {
  test('are adopted with their contents', () => {
    const place = join(pins, 'adopted');
    const first = openPinning(place, 'ports', 'settings');
    first.load();
    using ports = new HashMap({ fd: first.mapFd('ports') }, u16Codec, u64Codec);
    ports.set(5, 6n);
    first.close();
    using second = openPinning(place, 'ports', 'settings');
    second.load();
    using again = new HashMap({ fd: second.mapFd('ports') }, u16Codec, u64Codec);
    expect(again.get(5)).toBe(6n);
    expect(again.info.id).toBe(ports.info.id);
  });

  test('of another layout stop the load before anything changes', () => {
    const place = join(pins, 'mismatch');
    const first = openPinning(place, 'flows');
    first.load();
    first.close();
    using second = openPinning(place, 'flows', 'ports');
    second.setMaxEntries('flows', 17);
    second.setPinPath('settings', join(place, 'flows'));
    const error = thrownBy(() => second.load()) as LayoutMismatchError;
    expect(error).toBeInstanceOf(LayoutMismatchError);
    expect(error.differences).toEqual(
      expect.arrayContaining([
        { map: 'flows', pinPath: join(place, 'flows'), field: 'max_entries', pinned: 4096, wanted: 17 },
        { map: 'settings', pinPath: join(place, 'flows'), field: 'type', pinned: 1, wanted: 2 },
        { map: 'settings', pinPath: join(place, 'flows'), field: 'key_size', pinned: 16, wanted: 4 },
        { map: 'settings', pinPath: join(place, 'flows'), field: 'value_size', pinned: 88, wanted: 8 },
      ]),
    );
    expect(error.message).toContain('flows.max_entries is 4096');
    expect(readdirSync(place)).toEqual(['flows']);
  });
});

describe('maps', () => {
  let object: BpfObject;
  beforeAll(() => {
    object = openPinning(join(pins, 'maps'), 'flows', 'ports', 'settings', 'counters');
    object.load();
  });
  afterAll(() => object.close());
  const at = (name: string) => ({ path: join(pins, 'maps', name) });

  test('get, set, delete, update modes', () => {
    using map = new HashMap(at('flows'), bytesCodec(16), bytesCodec(88));
    const key = new Uint8Array(16).fill(1);
    const value = new Uint8Array(88).fill(2);
    expect(map.get(key)).toBeUndefined();
    expect((thrownBy(() => map.set(key, value, 'update')) as BpfError).code).toBe('ENOENT');
    map.set(key, value, 'create');
    expect((thrownBy(() => map.set(key, value, 'create')) as BpfError).code).toBe('EEXIST');
    expect(map.get(key)).toEqual(value);
    expect([map.has(key), map.delete(key), map.delete(key), map.has(key)]).toEqual([true, true, false, false]);
  });

  test('walk, batch and clear beyond one batch, 2-byte keys included', () => {
    using map = new HashMap(at('ports'), u16Codec, u64Codec);
    map.clear();
    map.setMany(Array.from({ length: 900 }, (_, i) => [i, BigInt(i) * 3n] as const));
    const entries = new Map(map.entries());
    // LRU maps may evict before they are full.
    expect(entries.size).toBeGreaterThan(600);
    expect(entries.size).toBe(map.count());
    for (const [key, value] of entries) expect(value).toBe(BigInt(key) * 3n);
    expect(new Set(map.keys())).toEqual(new Set(entries.keys()));
    const odd = [...entries.keys()].filter((key) => key % 2 === 1).length;
    expect(map.deleteWhere((key) => key % 2 === 1)).toBe(odd);
    expect(map.clear()).toBe(entries.size - odd);
    expect([...map.entries()]).toEqual([]);
  });

  test('a full hash map says so', () => {
    using map = new HashMap(at('flows'), bytesCodec(16), bytesCodec(88));
    const entry = (i: number): readonly [Uint8Array, Uint8Array] => {
      const key = Buffer.alloc(16);
      key.writeUInt32LE(i);
      return [key, Buffer.alloc(88)];
    };
    map.setMany(Array.from({ length: 4096 }, (_, i) => entry(i)));
    expect(map.count()).toBe(4096);
    expect((thrownBy(() => map.set(...entry(5000))) as BpfError).code).toBe('E2BIG');
    expect(map.clear()).toBe(4096);
  });

  test('longest prefixes match, and are walked without batches', () => {
    using map = new HashMap({ fd: object.mapFd('routes') }, bytesCodec(8), u32Codec);
    const prefix = (length: number, ...address: number[]): Uint8Array => Uint8Array.of(length, 0, 0, 0, ...address);
    map.setMany([
      [prefix(8, 10, 0, 0, 0), 1],
      [prefix(24, 10, 1, 2, 0), 2],
    ]);
    expect(map.get(prefix(32, 10, 1, 2, 3))).toBe(2);
    expect(map.get(prefix(32, 10, 9, 9, 9))).toBe(1);
    expect(map.get(prefix(32, 11, 0, 0, 1))).toBeUndefined();
    expect([...map.entries()].map(([, value]) => value).sort()).toEqual([1, 2]);
    expect(map.clear()).toBe(2);
  });

  test('arrays', () => {
    using map = new ArrayMap(at('settings'), u64Codec);
    map.set(3, 9n);
    expect([...map.entries()]).toEqual([
      [0, 0n],
      [1, 0n],
      [2, 0n],
      [3, 9n],
    ]);
    expect(() => map.get(4)).toThrow(/index 4 is not in 0..3/);
  });

  test('refuse wrong sizes, kinds and use after close', () => {
    expect(() => new HashMap(at('ports'), u32Codec, u64Codec)).toThrow(/2-byte keys and 8-byte values.* 4 and 8/);
    expect(() => new HashMap(at('counters'), u32Codec, u64Codec)).toThrow(/map type 6 is not usable/);
    expect(() => new ArrayMap(at('counters'), u64Codec)).toThrow(TypeError);
    expect(() => new PerCpuArray(at('ports'))).toThrow(/no per-CPU array/);
    const map = new HashMap(at('ports'), u16Codec, u64Codec);
    map.close();
    map.close();
    expect(() => map.get(1)).toThrow(ClosedError);
    expect(() => [...map.entries()]).toThrow(ClosedError);
  });

  test('per-CPU counters are summed', () => {
    using counters = new PerCpuArray(at('counters'));
    counters.reset(1);
    const { fd } = object.program('count_packets');
    testRun(fd, { data: frame, repeat: 5 });
    expect(counters.sum(1)).toBe(5n);
    expect(counters.perCpu(1)).toHaveLength(possibleCpus());
    expect(counters.perCpu(1).reduce((a, b) => a + b)).toBe(5n);
    expect(counters.allSums()).toHaveLength(8);
    expect(() => counters.sum(8)).toThrow(RangeError);
  });
});

describe('test runs', () => {
  let object: BpfObject;
  beforeAll(() => {
    object = BpfObject.open(objectPath);
    object.load();
  });
  afterAll(() => object.close());

  test('return the verdict, the packet and the context', () => {
    const { fd } = object.program('count_packets');
    const result = testRun(fd, {
      data: frame,
      ctx: { cb: [7, 0, 3], mark: 9, wire_len: 600, gso_segs: 2, gso_size: 300 },
    });
    expect(result.retval).toBe(TC_ACT_UNSPEC);
    expect(result.dataOut).toHaveLength(60);
    expect([...result.dataOut.subarray(0, 8)]).toEqual([6, 1, 2, 3, 4, 5, 0, 7]);
    expect(result.ctxOut).toMatchObject({ mark: 1, cb: [7, 8, 3, 0, 0], wire_len: 600, gso_segs: 2, ifindex: 1 });
    expect(result.durationNs).toBeGreaterThan(0);
  });

  test('report what the kernel refuses', () => {
    const { fd } = object.program('count_packets');
    const run = (options: Parameters<typeof testRun>[1]): string =>
      (thrownBy(() => testRun(fd, options)) as BpfError).code;
    expect(run({ data: Buffer.alloc(3) })).toBe('EINVAL');
    expect(run({ data: frame, ctx: { ifindex: 0x7ffffff } })).toBe('ENODEV');
    expect(run({ data: frame, dataOutMax: 20 })).toBe('ENOSPC');
  });
});

describe('devices', () => {
  test('TCX, clsact and ring buffers in a network namespace of their own', () => {
    const place = join(pins, 'devices');
    mkdirSync(place);
    const script = join(import.meta.dirname, 'fixtures/bindings-netns.ts');
    const child = spawnSync('unshare', ['-n', process.execPath, script, objectPath, place], {
      encoding: 'utf8',
      timeout: 60_000,
    });
    expect(child.stderr).toBe('');
    expect(child.status).toBe(0);
    expect(JSON.parse(child.stdout)).toEqual({
      tcx: {
        supported: true,
        order: ['pass', 'count'],
        afterClose: 1,
        sameLink: true,
        updated: true,
        removed: [true, false],
        afterRemove: 0,
        info: { type: 11, linkId: expect.any(Number), progId: true, ifindex: 1, attachType: 46 },
      },
      ring: { lengths: [43], errors: ['Error: third record'], records: 20, counted: 20 },
      clsact: {
        withoutQdisc: 'EINVAL',
        clsact: [true, false],
        absent: true,
        attached: true,
        replaced: true,
        detached: [true, false],
        gone: [true, false],
      },
      orphan: { ifindex: 0, removed: true },
      unknownDevice: ['ENODEV', 'ENODEV'],
    });
    expect(existsSync(join(place, 'link'))).toBe(false);
  });
});

describe('gen-layouts', () => {
  const script = join(import.meta.dirname, '../../../scripts/gen-layouts.ts');
  const generate = (...args: string[]): string =>
    execFileSync(process.execPath, [script, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

  test('is deterministic, checks drift, and its codecs fit the kernel', () => {
    const [out, proto] = [join(directory, 'layouts.ts'), join(directory, 'reasons.proto')];
    const args = [objectPath, '--out', out, '--reasons-proto', proto];
    generate(...args);
    const text = readFileSync(out, 'utf8');
    generate(...args);
    expect(readFileSync(out, 'utf8')).toBe(text);
    generate(...args, '--check');
    expect(readFileSync(proto, 'utf8')).toContain(
      'enum Reason {\n  REASON_NONE = 0;\n  REASON_NO_PEER = 1;\n  REASON_NOT_IP = 7;\n}',
    );
    rmSync(proto);
    expect(() => generate(...args, '--check')).toThrow(/reasons.proto is not what the objects say/);
    expect(text).toContain(
      "flows: {\n    name: 'flows',\n    type: 1,\n    maxEntries: 4096,\n    key: flowKeyCodec,\n    value: flowCodec,",
    );
    expect(text).toContain(
      "to.writeUInt16BE(checkInteger('xmasq_flow_key.src_port', value.srcPort, 0, 65535), at + 8)",
    );
  });

  test('its codecs write what the kernel reads, byte order included', () => {
    // The module imports the codec runtime from beside it.
    symlinkSync(join(import.meta.dirname, '../../src/bpf'), join(directory, 'bpf'));
    const out = join(directory, 'gen/layouts.ts');
    generate(objectPath, '--out', out);
    using object = openPinning(join(pins, 'layouts'), 'flows');
    object.load();
    const pinned = join(pins, 'layouts/flows');
    const child = spawnSync(
      process.execPath,
      [join(import.meta.dirname, 'fixtures/bindings-layouts.ts'), out, pinned],
      {
        encoding: 'utf8',
      },
    );
    expect(child.stderr).not.toContain('Error');
    expect(JSON.parse(child.stdout)).toEqual({
      entry: [
        { srcIp: 0x0a000001, dstIp: 0x0a000002, srcPort: 80, dstPort: 443, proto: 6 },
        {
          packets: '9223372036854775808',
          skew: '-2',
          epochs: [1, 2, 0xffffffff],
          hops: [0xc0a80001, 1],
          port: 0x1234,
          delta: -5,
          live: 1,
          mac: { octets: '010203040506' },
          words: [9, 8, 7, 6],
          ip6: '000102030405060708090a0b0c0d0e0f',
          reason: 7,
        },
      ],
      tooBig: 'RangeError: xmasq_flow_key.dst_port: 65536 is no integer in 0..65535',
      tooShort: 'RangeError: xmasq_flow.epochs: 1 elements, expected 3',
    });
    // The second opinion: bpftool formats the entry by the kernel's BTF, big endian numbers as they are in memory.
    const dump = execFileSync('bpftool', ['-j', 'map', 'dump', 'pinned', pinned], { encoding: 'utf8' });
    const [{ formatted }] = JSON.parse(dump) as [{ formatted: unknown }];
    expect(formatted).toMatchObject({
      key: { src_ip: 0x0100000a, dst_ip: 0x0200000a, src_port: 0x5000, dst_port: 0xbb01, proto: 6, pad: [0, 0, 0] },
      value: {
        skew: -2,
        epochs: [1, 2, 0xffffffff],
        hops: [0x0100a8c0, 0x01000000],
        port: 0x1234,
        delta: -5,
        live: true,
        mac: { octets: [1, 2, 3, 4, 5, 6] },
        reason: 'XMASQ_REASON_NOT_IP',
      },
    });
  });
});
