/**
 * Which program is attached to which device. Attachments outlive this process: TCX links are pinned, clsact filters stay
 * by themselves and are noted down. Every operation can be repeated.
 */
import { renameSync } from 'node:fs';
import { attachClsact, detachClsact, ensureClsact, queryClsact, removeClsact } from '../bpf/clsact.ts';
import { BpfError, Errno, isENODEV, isENOENT } from '../bpf/errors.ts';
import { attachTcx, Link, queryTcx, removePinnedLink, tcxSupported } from '../bpf/link.ts';
import { unpin } from '../bpf/pins.ts';
import { filters } from '../netlink/rtnetlink.ts';
import type { Notes } from './notes.ts';
import type { PinLayout } from './pins.ts';
import { HOOKS, isTcProgramName, type TcProgram, type TcProgramName } from './programs.ts';

/** A program at a device. */
export interface Attachment {
  readonly program: TcProgramName;
  readonly ifindex: number;
}

/** One way to attach tc programs. */
export interface Attacher {
  readonly mode: 'tcx' | 'clsact';
  /**
   * Attaches the program, or puts it in place of the one that this name has there already.
   * @throws BpfError ENODEV where the device is gone
   */
  attach(program: TcProgram, ifindex: number): void;
  /** @returns false where it was not attached */
  detach(name: TcProgramName, ifindex: number): boolean;
  /** What was attached and not detached since, devices that are gone included. */
  list(): Attachment[];
  /** Is a program of this name attached there, whichever build's? */
  has(name: TcProgramName, ifindex: number): boolean;
  /** Is this very program attached, and before all others of its hook? */
  position(program: TcProgram, ifindex: number): 'first' | 'later' | 'absent';
  /**
   * Puts an attached program before all others.
   * @param reload loads and pins the program once more: the kernel takes no program twice at one hook
   * @returns the program that is attached now
   */
  moveFirst(program: TcProgram, ifindex: number, reload: () => TcProgram): TcProgram;
}

function parseName(name: string): Attachment | undefined {
  const match = /^([a-z_]+)-(\d+)$/.exec(name);
  const program = match?.[1];
  if (program === undefined || !isTcProgramName(program)) return undefined;
  return { program, ifindex: Number(match?.[2]) };
}

/** TCX links (Linux 6.6 and later), pinned. */
export class TcxAttacher implements Attacher {
  readonly mode = 'tcx';
  readonly #pins: PinLayout;

  constructor(pins: PinLayout) {
    this.#pins = pins;
  }

  attach(program: TcProgram, ifindex: number): void {
    const path = this.#pins.link(program.name, ifindex);
    if (this.#adopt(program, ifindex, path)) return;
    unpin(path);
    const { direction, first } = HOOKS[program.name];
    using link = attachTcx({ progFd: program.fd, ifindex, direction, first });
    link.pin(path);
  }

  detach(name: TcProgramName, ifindex: number): boolean {
    return removePinnedLink(this.#pins.link(name, ifindex));
  }

  list(): Attachment[] {
    return this.#pins.list(this.#pins.links).flatMap((name) => parseName(name) ?? []);
  }

  has(name: TcProgramName, ifindex: number): boolean {
    try {
      using link = Link.openPinned(this.#pins.link(name, ifindex));
      return link.info().ifindex === ifindex;
    } catch (error) {
      if (isENOENT(error)) return false;
      throw error;
    }
  }

  position(program: TcProgram, ifindex: number): 'first' | 'later' | 'absent' {
    let order: number[];
    try {
      order = queryTcx(ifindex, HOOKS[program.name].direction);
    } catch (error) {
      if (isENODEV(error)) return 'absent';
      throw error;
    }
    const index = order.indexOf(program.id);
    return index === 0 ? 'first' : index > 0 ? 'later' : 'absent';
  }

  moveFirst(program: TcProgram, ifindex: number, reload: () => TcProgram): TcProgram {
    const path = this.#pins.link(program.name, ifindex);
    const temporary = `${path}-new`;
    unpin(temporary);
    const fresh = reload();
    // For a moment both run. Between them our own packets are lost, because the first one takes their mark away; with
    // neither, the node's own packets could be taken for masqueraded ones.
    using link = attachTcx({ progFd: fresh.fd, ifindex, direction: HOOKS[program.name].direction, first: true });
    link.pin(temporary);
    removePinnedLink(path);
    renameSync(temporary, path);
    return fresh;
  }

  /** Takes the pinned link over if it still is at this device. */
  #adopt(program: TcProgram, ifindex: number, path: string): boolean {
    let link: Link;
    try {
      link = Link.openPinned(path);
    } catch (error) {
      if (isENOENT(error)) return false;
      throw error;
    }
    using owned = link;
    const info = owned.info();
    if (info.ifindex !== ifindex) return false;
    if (info.progId !== program.id) owned.update(program.fd);
    return true;
  }
}

/** "xmq": tells our filters from other people's of the same priority. */
const HANDLE = 0x786d71;
/** Filters run by priority; 1 is before all that did not ask for it. */
const PRIORITY = 1;

/** Filters on the clsact qdisc, for kernels without TCX. */
export class ClsactAttacher implements Attacher {
  readonly mode = 'clsact';
  readonly #notes: Notes;

  /** @param notes remember what is attached, and which qdiscs are ours */
  constructor(notes: Notes) {
    this.#notes = notes;
  }

  attach(program: TcProgram, ifindex: number): void {
    if (ensureClsact(ifindex).created) this.#notes.set(`qdisc-${ifindex}`, 'ours');
    const filter = this.#filter(program.name, ifindex);
    if (queryClsact(filter) !== program.id) attachClsact({ ...filter, progFd: program.fd });
    this.#notes.set(`filter-${program.name}-${ifindex}`, 'attached');
  }

  detach(name: TcProgramName, ifindex: number): boolean {
    const detached = detachClsact(this.#filter(name, ifindex));
    this.#notes.delete(`filter-${name}-${ifindex}`);
    const others = this.list().some((attachment) => attachment.ifindex === ifindex);
    if (!others) this.#removeQdisc(ifindex);
    return detached;
  }

  list(): Attachment[] {
    return this.#notes.names('filter-').flatMap((name) => parseName(name.slice('filter-'.length)) ?? []);
  }

  has(name: TcProgramName, ifindex: number): boolean {
    return queryClsact(this.#filter(name, ifindex)) !== undefined;
  }

  position(program: TcProgram, ifindex: number): 'first' | 'later' | 'absent' {
    const order = filters(ifindex, HOOKS[program.name].direction).filter((filter) => filter.handle !== 0);
    const index = order.findIndex((filter) => filter.bpfId === program.id);
    return index === 0 ? 'first' : index > 0 ? 'later' : 'absent';
  }

  moveFirst(program: TcProgram, ifindex: number): TcProgram {
    // Of one priority, the filter that was added last runs first.
    const filter = this.#filter(program.name, ifindex);
    detachClsact(filter);
    attachClsact({ ...filter, progFd: program.fd });
    return program;
  }

  /** Removes a qdisc that we made, unless somebody has put filters on it since. */
  #removeQdisc(ifindex: number): void {
    const note = `qdisc-${ifindex}`;
    if (this.#notes.get(note) === undefined) return;
    const foreign = (['ingress', 'egress'] as const).some((direction) => filters(ifindex, direction).length > 0);
    if (!foreign) removeClsact(ifindex);
    this.#notes.delete(note);
  }

  #filter(name: TcProgramName, ifindex: number): Parameters<typeof detachClsact>[0] {
    return { ifindex, direction: HOOKS[name].direction, handle: HANDLE, priority: PRIORITY };
  }
}

/** The way to attach that this kernel has. @throws BpfError EPERM without CAP_NET_ADMIN */
export function chooseAttacher(pins: PinLayout, notes: Notes): Attacher {
  return tcxSupported() ? new TcxAttacher(pins) : new ClsactAttacher(notes);
}

/** True for the errors that mean "the device is gone". */
export function isDeviceGone(error: unknown): boolean {
  return error instanceof BpfError && (error.errno === Errno.ENODEV || error.errno === Errno.ENOENT);
}
