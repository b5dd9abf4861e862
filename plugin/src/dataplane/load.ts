/** Loads the data plane, or takes over the one that is pinned. Nothing is attached here. */
import { existsSync, renameSync } from 'node:fs';
import { LayoutMismatchError } from '../bpf/errors.ts';
import { openPinned, type OwnedFd } from '../bpf/fd.ts';
import { mapInfo, programInfo } from '../bpf/info.ts';
import { ArrayMap } from '../bpf/map.ts';
import { BpfObject } from '../bpf/object.ts';
import { unpin } from '../bpf/pins.ts';
import { maps } from '../gen/layouts.ts';
import { LAYOUT_VERSION } from './layout.ts';
import { PinLayout } from './pins.ts';
import { PROGRAM_NAMES, type Program, type ProgramName } from './programs.ts';
import { openTables, SIZED_MAPS, type KernelTables, type SizedMap } from './tables.ts';

/** The pinned state is that of another build; nothing has been changed when this is thrown. */
export class IncompatibleStateError extends Error {
  override readonly name = 'IncompatibleStateError';
  /** What differs, in words for people. */
  readonly differences: readonly string[];

  constructor(pins: string, differences: readonly string[]) {
    super(
      `what is pinned at ${pins} has another layout than this build: ${differences.join('; ')}. It was left ` +
        'as it is. If it is a data plane of XMasq, run "xmasq-agent cleanup --force" of the version that loaded it, and start again; ' +
        'else configure another "bpffs"',
    );
    this.differences = differences;
  }
}

/** Every program by its name. */
export type LoadedPrograms = { readonly [Name in ProgramName]: Program<Name> };

/** What is loaded. Its descriptors belong to it. */
export interface LoadedDataPlane {
  readonly pins: PinLayout;
  readonly tables: KernelTables;
  readonly programs: LoadedPrograms;
  /** The maps were there already, contents included. */
  readonly adopted: boolean;
  /** Programs that are not those pinned before: links have to be updated. */
  readonly replaced: readonly ProgramName[];
  /** Opens the ring buffer. */
  readonly eventsPath: string;
  close(): void;
}

export interface LoadOptions {
  /** Directory for the pins. */
  readonly pins: PinLayout;
  /** The object file, xmasq.bpf.o. */
  readonly objectPath: string;
  /** Entries of the maps whose size can be chosen. */
  readonly sizes: Readonly<Record<SizedMap, number>>;
}

/** The layout version in a pinned `config` map; 0: it was never written. */
function pinnedLayoutVersion(path: string): number {
  using map = new ArrayMap({ path }, maps.config.value);
  return map.get(0).layoutVersion;
}

/** Layout differences that sizes do not show; only for maps whose sizes agree. */
function checkVersion(pins: PinLayout): void {
  const path = pins.map('config');
  if (!existsSync(path)) return;
  let version: number;
  try {
    version = pinnedLayoutVersion(path);
  } catch (error) {
    // Another size: load() reports it with all others.
    if (error instanceof RangeError || error instanceof TypeError) return;
    throw error;
  }
  if (version !== 0 && version !== LAYOUT_VERSION) {
    throw new IncompatibleStateError(pins.root, [`layout version ${version}, this build has ${LAYOUT_VERSION}`]);
  }
}

/** Do both programs use the same maps, as far as these are pinned? */
function sameMaps(a: readonly number[], b: readonly number[], pinned: ReadonlySet<number>): boolean {
  const relevant = (ids: readonly number[]): string =>
    ids
      .filter((id) => pinned.has(id))
      .sort((x, y) => x - y)
      .join();
  return relevant(a) === relevant(b);
}

/** Puts the new program's pin in the old one's place, with no moment without a pin. */
function replacePin(object: BpfObject, name: ProgramName, path: string): void {
  const temporary = `${path}-new`;
  unpin(temporary);
  object.pinProgram(name, temporary);
  renameSync(temporary, path);
}

function setSizes(object: BpfObject, sizes: LoadOptions['sizes']): void {
  for (const name of SIZED_MAPS) object.setMaxEntries(name, sizes[name]);
  // Finds entries of flows.
  object.setMaxEntries('translated', sizes.flows);
}

/** The pinned program if it is the same as the new one, else the new one, pinned now. */
function adoptProgram(
  object: BpfObject,
  name: ProgramName,
  pins: PinLayout,
  mapIds: ReadonlySet<number>,
): { fd: OwnedFd; replaced: boolean } {
  const path = pins.program(name);
  const wanted = programInfo(object.program(name).fd);
  if (existsSync(path)) {
    const fd = openPinned(path);
    const pinned = programInfo(fd.fd);
    if (pinned.tag === wanted.tag && sameMaps(pinned.mapIds, wanted.mapIds, mapIds)) return { fd, replaced: false };
    fd.close();
  }
  replacePin(object, name, path);
  return { fd: openPinned(path), replaced: true };
}

/** The object with its maps at their places; `load` of it adopts what is pinned. */
function openObject({ pins, objectPath, sizes }: LoadOptions): { object: BpfObject; pinned: readonly string[] } {
  const object = BpfObject.open(objectPath);
  try {
    setSizes(object, sizes);
    // Others are the compiler's own.
    const pinned = object.mapNames().filter((name) => !name.includes('.'));
    for (const name of pinned) object.setPinPath(name, pins.map(name));
    return { object, pinned };
  } catch (error) {
    object.close();
    throw error;
  }
}

/** Does this, and tells of another layout in words for people. */
function explainingLayout(pins: PinLayout, work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof LayoutMismatchError)) throw error;
    throw new IncompatibleStateError(
      pins.root,
      error.differences.map(
        (d) => `map ${d.map} has ${d.field} ${d.pinned}, this build and configuration want ${d.wanted}`,
      ),
    );
  }
}

/**
 * Whether what is pinned could be adopted; changes nothing.
 * @throws IncompatibleStateError
 */
export function requireAdoptable(options: LoadOptions): void {
  checkVersion(options.pins);
  const { object } = openObject(options);
  using opened = object;
  explainingLayout(options.pins, () => opened.requireSameLayout());
}

/** Entries of the maps of a trial: as few as a configuration can ask for. */
const TRIAL_ENTRIES = 1024;

/**
 * Whether this kernel takes every program; nothing is pinned or stays.
 * @throws VerifierError, BpfError where it does not
 */
export function tryDataPlane(objectPath: string): void {
  using object = BpfObject.open(objectPath);
  setSizes(object, { flows: TRIAL_ENTRIES, slots: TRIAL_ENTRIES, approvals: TRIAL_ENTRIES, refusals: TRIAL_ENTRIES });
  object.load();
}

/**
 * Loads everything, adopting pinned maps with their contents and pinned programs that are the same as this build's.
 * @throws IncompatibleStateError before anything is changed
 * @throws VerifierError, BpfError where the kernel refuses
 */
export function loadDataPlane(options: LoadOptions): LoadedDataPlane {
  const { pins } = options;
  const adopted = pins.exists();
  pins.prepare();
  checkVersion(pins);
  const { object: opened, pinned } = openObject(options);
  using object = opened;
  explainingLayout(pins, () => object.load());
  const mapIds = new Set(pinned.map((name) => mapInfo(object.mapFd(name)).id));
  const descriptors: OwnedFd[] = [];
  const closeAll = (): void => {
    for (const fd of descriptors) fd.close();
  };
  try {
    const replaced: ProgramName[] = [];
    const programs = new Map<ProgramName, Program>();
    for (const name of PROGRAM_NAMES) {
      const program = adoptProgram(object, name, pins, mapIds);
      descriptors.push(program.fd);
      if (program.replaced && adopted) replaced.push(name);
      programs.set(name, { name, fd: program.fd.fd, id: programInfo(program.fd.fd).id });
    }
    const tables = openTables((map) => ({ path: pins.map(map) }));
    return {
      pins,
      tables,
      programs: Object.fromEntries(programs) as LoadedPrograms,
      adopted,
      replaced,
      eventsPath: pins.map('events'),
      close() {
        tables.close();
        closeAll();
      },
    };
  } catch (error) {
    closeAll();
    throw error;
  }
}

/**
 * Loads one program a second time over the pinned maps, and pins that in place of the first: two attachments at one hook
 * need two programs. See Uplink.
 */
export function reloadProgram<Name extends ProgramName>(
  options: LoadOptions,
  name: Name,
): { program: Program<Name>; fd: OwnedFd } {
  const { pins } = options;
  using object = openObject(options).object;
  for (const program of object.programNames()) object.setAutoload(program, program === name);
  object.load();
  replacePin(object, name, pins.program(name));
  const fd = openPinned(pins.program(name));
  return { program: { name, fd: fd.fd, id: programInfo(fd.fd).id }, fd };
}
