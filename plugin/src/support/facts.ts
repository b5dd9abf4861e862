/** What the kernel tells that a support bundle needs; read only, and of XMasq's own objects by their pins. */
import { readdirSync, readFileSync } from 'node:fs';
import { arch, cpus, release, totalmem, version } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { openPinned } from '../bpf/fd.ts';
import { linkInfo, mapInfo, programInfo } from '../bpf/info.ts';
import { queryTcx, tcxSupported } from '../bpf/link.ts';
import type { Config } from '../config/config.ts';
import { PinLayout } from '../dataplane/pins.ts';
import { addresses, filters, links, qdiscs } from '../netlink/rtnetlink.ts';
import { errorMessage } from '../util/errors.ts';

/** Devices that are looked at one by one. */
const MAX_DEVICES = 2048;
const DIRECTIONS = ['ingress', 'egress'] as const;

/** Settings of the build that matter. */
const BUILD_SETTINGS =
  /^(?:# )?CONFIG_(?:BPF|CGROUP_BPF|DEBUG_INFO_BTF|HZ|NET_CLS_BPF|NET_CLS_ACT|NET_SCH_INGRESS|NF_CONNTRACK|NETFILTER_NETLINK|OPENVSWITCH|VXLAN|GENEVE|XDP|NET_XGRESS|LSM)/;
const MODULES =
  /^(?:nf_conntrack|openvswitch|vport|vxlan|geneve|wireguard|ip_set|nft|cls_bpf|sch_ingress|veth|bonding|8021q)/;
const SETTINGS = [
  '/proc/sys/kernel/unprivileged_bpf_disabled',
  '/proc/sys/net/core/bpf_jit_enable',
  '/proc/sys/net/core/bpf_jit_harden',
  '/proc/sys/net/ipv4/ip_forward',
  '/proc/sys/net/ipv4/conf/all/rp_filter',
  '/proc/sys/net/ipv6/conf/all/forwarding',
  '/proc/sys/net/netfilter',
];
const STATUS = /^(?:Uid|Gid|Cap\w+|NoNewPrivs|Seccomp\w*):.*$/gm;

/** The kernel, its settings, and what this process may. */
export function kernelFacts(): object {
  return {
    release: release(),
    version: version(),
    architecture: arch(),
    cpus: cpus().length,
    memoryBytes: totalmem(),
    build: attempt(() => buildSettings()),
    modules: attempt(() => linesOf('/proc/modules').filter((line) => MODULES.test(line))),
    settings: Object.fromEntries(SETTINGS.flatMap(settingsBelow)),
    process: attempt(() => readFileSync('/proc/self/status', 'utf8').match(STATUS) ?? []),
    namespaces: attempt(() => readFileSync('/proc/self/uid_map', 'utf8').trim()),
    bpfMounts: attempt(() => linesOf('/proc/self/mountinfo').filter((line) => line.includes(' - bpf '))),
  };
}

/** Devices with their addresses, and every tc program and filter on them in the order in which they run. */
export function deviceFacts(): object[] {
  const held = addresses();
  const tcx = tcxSupported();
  return links()
    .slice(0, MAX_DEVICES)
    .map((link) => ({
      ...link,
      addresses: held.filter(({ ifindex }) => ifindex === link.ifindex),
      qdiscs: attempt(() => qdiscs(link.ifindex)),
      ...Object.fromEntries(
        DIRECTIONS.map((direction) => [
          direction,
          attempt(() => ({
            tcx: tcx ? queryTcx(link.ifindex, direction) : [],
            filters: filters(link.ifindex, direction),
          })),
        ]),
      ),
    }));
}

/** XMasq's maps, programs and links, by their pins. */
export function pinFacts({ bpffs }: Config): object {
  const pins = new PinLayout(bpffs);
  const each = (directory: string, info: (fd: number) => object): object =>
    Object.fromEntries(
      pins.list(directory).map((name) => [
        name,
        attempt(() => {
          using fd = openPinned(join(directory, name));
          return info(fd.fd);
        }),
      ]),
    );
  return {
    root: bpffs,
    maps: each(pins.maps, mapInfo),
    programs: each(pins.programs, programInfo),
    links: each(pins.links, linkInfo),
    notes: pins.list(pins.notes),
  };
}

function buildSettings(): string[] {
  const text = readOneOf(['/proc/config.gz', `/boot/config-${release()}`]);
  return text.split('\n').filter((line) => BUILD_SETTINGS.test(line));
}

function readOneOf(files: readonly [string, string]): string {
  const [packed, plain] = files;
  try {
    return gunzipSync(readFileSync(packed)).toString('utf8');
  } catch {
    return readFileSync(plain, 'utf8');
  }
}

function settingsBelow(path: string): [string, unknown][] {
  try {
    return readdirSync(path).map((name) => [
      join(path, name),
      attempt(() => readFileSync(join(path, name), 'utf8').trim()),
    ]);
  } catch {
    return [[path, attempt(() => readFileSync(path, 'utf8').trim())]];
  }
}

function linesOf(file: string): string[] {
  return readFileSync(file, 'utf8').split('\n');
}

/** What is not there, or may not be read, is a fact as well. */
function attempt<T>(read: () => T): T | { readonly error: string } {
  try {
    return read();
  } catch (error) {
    return { error: errorMessage(error) };
  }
}
