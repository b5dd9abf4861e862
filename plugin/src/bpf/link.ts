/** Programs attached by links: tc programs by TCX (Linux 6.6 and later), XDP programs (5.9 and later). */
import { check, Errno, BpfError, isEINVAL } from './errors.ts';
import { openPinned, OwnedFd } from './fd.ts';
import { linkInfo, type LinkInfo } from './info.ts';
import { addressOf, BpfCommand, bpfSyscall, libbpf } from './libbpf.ts';
import { pin, unpin } from './pins.ts';

/** Seen from the device: ingress is what it receives. */
export type Direction = 'ingress' | 'egress';

/** enum bpf_attach_type: BPF_TCX_INGRESS, BPF_TCX_EGRESS. */
export const TCX_ATTACH_TYPE: Readonly<Record<Direction, number>> = { ingress: 46, egress: 47 };

/** BPF_F_BEFORE: without a relative object, before all others. */
const BPF_F_BEFORE = 1 << 3;
/** Size of the link_create part of union bpf_attr; zero beyond what we fill. */
const LINK_CREATE_BYTES = 64;
const QUERY_BYTES = 64;
/** The kernel allows 64 programs per hook (BPF_MPROG_MAX). */
const MAX_PROGRAMS = 64;

export interface TcxOptions {
  readonly progFd: number;
  /** In the network namespace of this process. */
  readonly ifindex: number;
  readonly direction: Direction;
  /** Before all programs attached so far; otherwise after them. */
  readonly first?: boolean;
}

/** An attached program. It is detached when the last descriptor and pin are gone, or by detach(). */
export class Link {
  readonly #fd: OwnedFd;

  /** @param fd ownership passes to the link */
  constructor(fd: OwnedFd) {
    this.#fd = fd;
  }

  /** @throws BpfError ENOENT where nothing is pinned */
  static openPinned(path: string): Link {
    return new Link(openPinned(path));
  }

  /** Keeps the attachment beyond this process. @throws BpfError EEXIST where something is pinned already */
  pin(path: string): void {
    pin(this.#fd.fd, path);
  }

  /** Puts another program in place, with no packet in between that sees none. */
  update(progFd: number): void {
    check(`update link to program descriptor ${progFd}`, libbpf().bpf_link_update(this.#fd.fd, progFd, null));
  }

  info(): LinkInfo {
    return linkInfo(this.#fd.fd);
  }

  /** Detaches at once, whoever else holds the link. */
  detach(): void {
    check('detach link', libbpf().bpf_link_detach(this.#fd.fd));
  }

  /** Drops our descriptor; an unpinned link is detached by that. A second call does nothing. */
  close(): void {
    this.#fd.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * Attaches a tc program to a device by a link.
 * @throws BpfError ENODEV for an unknown device, EINVAL on kernels without TCX
 */
export function attachTcx({ progFd, ifindex, direction, first }: TcxOptions): Link {
  // libbpf 1.1 knows no TCX options, hence bpf(2) itself. attr: prog_fd, target_ifindex, attach_type, flags, relative_fd.
  const attr = Buffer.alloc(LINK_CREATE_BYTES);
  attr.writeUInt32LE(progFd, 0);
  attr.writeUInt32LE(ifindex, 4);
  attr.writeUInt32LE(TCX_ATTACH_TYPE[direction], 8);
  attr.writeUInt32LE(first === true ? BPF_F_BEFORE : 0, 12);
  const operation = `attach TCX ${direction} to device ${ifindex}`;
  return new Link(new OwnedFd(bpfSyscall(operation, BpfCommand.LINK_CREATE, attr), `link ${operation}`));
}

/** enum bpf_attach_type: BPF_XDP. */
const XDP_ATTACH_TYPE = 37;
/** XDP_FLAGS_DRV_MODE: in the driver, before the kernel makes a buffer; or not at all. */
const XDP_FLAGS_DRV_MODE = 1 << 2;

/**
 * Attaches an XDP program to a device by a link, in native mode.
 * @throws BpfError EOPNOTSUPP where the driver cannot, EBUSY where there is one already, ENODEV for an unknown device
 */
export function attachXdp(progFd: number, ifindex: number): Link {
  const attr = Buffer.alloc(LINK_CREATE_BYTES);
  attr.writeUInt32LE(progFd, 0);
  attr.writeUInt32LE(ifindex, 4);
  attr.writeUInt32LE(XDP_ATTACH_TYPE, 8);
  attr.writeUInt32LE(XDP_FLAGS_DRV_MODE, 12);
  const operation = `attach XDP to device ${ifindex}`;
  return new Link(new OwnedFd(bpfSyscall(operation, BpfCommand.LINK_CREATE, attr), `link ${operation}`));
}

/** Opens a pinned link and detaches it, then removes the pin. @returns false where nothing was pinned */
export function removePinnedLink(path: string): boolean {
  let link: Link;
  try {
    link = Link.openPinned(path);
  } catch (error) {
    if (error instanceof BpfError && error.errno === Errno.ENOENT) return false;
    throw error;
  }
  try {
    link.detach();
  } catch (error) {
    // The device went before us and took the attachment along.
    if (!(error instanceof BpfError && error.errno === Errno.ENODEV)) throw error;
  } finally {
    link.close();
    unpin(path);
  }
  return true;
}

/** Filled by each query, which is over when it returns: a sidecar asks some hundred hooks every few seconds. */
const query = { attr: Buffer.alloc(QUERY_BYTES), progIds: Buffer.alloc(4 * MAX_PROGRAMS) };

/**
 * The numbers of the programs that are attached at a TCX hook, in the order of execution.
 * @throws BpfError ENODEV for an unknown device, EINVAL on kernels without TCX
 */
export function queryTcx(ifindex: number, direction: Direction): number[] {
  const { attr, progIds } = query;
  // attr.query: target_ifindex 0, attach_type 4, prog_ids 16, count 24.
  attr.fill(0);
  attr.writeUInt32LE(ifindex, 0);
  attr.writeUInt32LE(TCX_ATTACH_TYPE[direction], 4);
  attr.writeBigUInt64LE(addressOf(progIds), 16);
  attr.writeUInt32LE(MAX_PROGRAMS, 24);
  try {
    bpfSyscall(`query TCX ${direction} of device ${ifindex}`, BpfCommand.PROG_QUERY, attr);
  } catch (error) {
    // Early 6.6 says so where nothing was ever attached.
    if (!(error instanceof BpfError && error.errno === Errno.ENOENT)) throw error;
    return [];
  }
  const count = Math.min(attr.readUInt32LE(24), MAX_PROGRAMS);
  return Array.from({ length: count }, (_, i) => progIds.readUInt32LE(4 * i));
}

/** The loopback device has this index in every network namespace. */
const LOOPBACK_IFINDEX = 1;

/**
 * Tells by trying whether the kernel has TCX.
 * @throws BpfError EPERM without CAP_NET_ADMIN
 */
export function tcxSupported(): boolean {
  try {
    queryTcx(LOOPBACK_IFINDEX, 'ingress');
    return true;
  } catch (error) {
    if (isEINVAL(error)) return false;
    throw error;
  }
}
