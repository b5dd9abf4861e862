import { isIPv4 } from 'node:net';
import type { xmasq } from '../gen/xmasq.js';
import { canonicalAddress, familyOf } from '../netlink/ip.ts';
import type { Pod } from './backend.ts';
import { invalidArgument } from './errors.ts';

const MAX_IPS = 4;
/** DNS label and subdomain of RFC 1123, as Kubernetes names namespaces and pods. */
const LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
const SUBDOMAIN = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;
const CONTAINER_ID = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;
const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;

/**
 * A pod as received, checked field by field and normalised.
 * @param where which pod it is if it has no name, e.g. `pod 3 of the snapshot`
 * @throws RpcError INVALID_ARGUMENT that names the pod and the field
 */
export function validatePod(message: xmasq.v1.Pod.$Properties, where: string): Pod {
  const namespace = message.namespace ?? '';
  const name = message.name ?? '';
  const label = podLabel(namespace, name, where);
  const check = (valid: boolean, field: string, value: string, expected: string): void => {
    if (!valid) throw invalidArgument(fieldError(label, field, value, expected));
  };

  check(LABEL.test(namespace), 'namespace', namespace, 'a namespace name (lower-case letters, digits, -; up to 63)');
  check(SUBDOMAIN.test(name), 'name', name, 'a pod name (lower-case letters, digits, -, .; up to 253)');
  const containerId = message.containerId ?? '';
  check(CONTAINER_ID.test(containerId), 'container_id', containerId, 'an ID of up to 128 letters, digits, _, ., -');
  const ifName = message.ifName ?? '';
  check(
    isInterfaceName(ifName),
    'if_name',
    ifName,
    'the name of the host-side interface, 1 to 15 bytes without / : space',
  );
  const mac = (message.mac ?? '').toLowerCase();
  check(isUnicastMac(mac), 'mac', mac, 'a unicast Ethernet address as aa:bb:cc:dd:ee:ff');

  const given = message.ips ?? [];
  check(given.length >= 1 && given.length <= MAX_IPS, 'ips', given.join(','), `1 to ${MAX_IPS} addresses`);
  const ips = given.map((ip, index) => {
    const canonical = canonicalIp(ip);
    check(canonical !== undefined, `ips[${index}]`, ip, 'a unicast IPv4 or IPv6 address without prefix length');
    return canonical ?? ip;
  });
  check(new Set(ips).size === ips.length, 'ips', ips.join(','), 'addresses that differ from each other');
  return { namespace, name, containerId, ifName, ips, mac };
}

/**
 * The container ID of a removal.
 * @throws RpcError INVALID_ARGUMENT
 */
export function validatePodRef(message: xmasq.v1.PodRef.$Properties): string {
  const containerId = message.containerId ?? '';
  if (!CONTAINER_ID.test(containerId)) {
    const label = podLabel(message.namespace ?? '', message.name ?? '', 'removed pod');
    const expected = 'the ID the pod was added with';
    throw invalidArgument(fieldError(label, 'container_id', containerId, expected));
  }
  return containerId;
}

/** `pod ns/name`, or where the pod stands if it has no usable name. */
export function podLabel(namespace: string, name: string, where: string): string {
  return name === '' ? where : `pod ${shorten(namespace)}/${shorten(name)}`;
}

function fieldError(label: string, field: string, value: string, expected: string): string {
  const problem = value === '' ? 'is missing' : `is ${JSON.stringify(shorten(value))}`;
  return `${label}: field ${field} ${problem}; expected ${expected}`;
}

/** Keeps messages readable whatever a client sends. */
function shorten(text: string): string {
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

/** As the kernel's dev_valid_name(). */
function isInterfaceName(name: string): boolean {
  const bytes = new TextEncoder().encode(name).length;
  return bytes >= 1 && bytes <= 15 && name !== '.' && name !== '..' && !/[/:\s\0]/.test(name);
}

function isUnicastMac(mac: string): boolean {
  return MAC.test(mac) && mac !== '00:00:00:00:00:00' && (Number.parseInt(mac.slice(0, 2), 16) & 1) === 0;
}

/** The address in its one canonical form; undefined: not an address a pod can have. */
function canonicalIp(ip: string): string | undefined {
  if (isIPv4(ip)) {
    const first = Number.parseInt(ip, 10);
    return first === 0 || first === 127 || first >= 224 ? undefined : ip;
  }
  // A zone (fe80::1%eth0) is meaningless outside the pod.
  if (familyOf(ip) !== 6 || ip.includes('%')) return undefined;
  const address = canonicalAddress(ip);
  const unusable = address === '::' || address === '::1' || address.startsWith('ff') || address.startsWith('::ffff:');
  return unusable ? undefined : address;
}
