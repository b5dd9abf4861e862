/**
 * The words that the OpenFlow pipeline is written in: tables, registers, marks, cookies, priorities. Table names are
 * Antrea's, the numbers are the lab's own. docs/ovs-lab.md says which flow stands for which behaviour.
 *
 * Registers: reg0[0..3] where the packet came from (as in the mark), reg0[4..7] where it goes, reg0[9] MAC addresses must be
 * rewritten, reg1 output port, reg3 (of IPv6 xxreg3) and reg4[0..15] address and port of a Service's endpoint, reg4[16] the Service's
 * address is for clients outside of the cluster, reg8[0..15] conntrack zone.
 */
import ipaddr from 'ipaddr.js';
import { ANTREA } from '../lab.ts';
import { ROUND } from './names.ts';

/** OpenFlow tables, in the order in which a packet meets them. */
export const TABLES = {
  PipelineRootClassifier: 0,
  ARPSpoofGuard: 1,
  ARPResponder: 2,
  Classifier: 5,
  SpoofGuard: 10,
  IPv6: 12,
  UnSNAT: 15,
  ConntrackZone: 20,
  ConntrackState: 21,
  ServiceLB: 25,
  EndpointDNAT: 26,
  EgressRule: 30,
  EgressDefaultRule: 31,
  EgressMetric: 32,
  L3Forwarding: 33,
  L3DecTTL: 34,
  SNATMark: 36,
  SNAT: 37,
  L2ForwardingCalc: 40,
  IngressSecurityClassifier: 41,
  IngressRule: 42,
  IngressDefaultRule: 43,
  IngressMetric: 44,
  ConntrackCommit: 45,
  Output: 50,
} as const;

/** The two policy stages: their tables, what follows, and where a rule's number begins in ct_label. */
export const STAGES = {
  egress: {
    table: 'EgressRule',
    isolation: 'EgressDefaultRule',
    metric: 'EgressMetric',
    next: 'L3Forwarding',
    labelBit: 32,
  },
  ingress: {
    table: 'IngressRule',
    isolation: 'IngressDefaultRule',
    metric: 'IngressMetric',
    next: 'ConntrackCommit',
    labelBit: 0,
  },
} as const;

/** What a packet came from; the low nibble of ct_mark once the connection is allowed. */
export const SOURCE = {
  tunnel: ANTREA.markFromTunnel,
  gateway: ANTREA.markFromGateway,
  pod: ANTREA.markFromPod,
} as const;

/** ct_mark bit of a connection that was translated for a Service. */
export const SERVICE_MARK = 0x10;

/** ct_mark bit of a connection whose source is translated, too. */
export const SNAT_MARK = 0x20;

/** ct_mark bit of a connection that leaves by the port that it came from. */
export const HAIRPIN_MARK = 0x40;

/** ct_mark bit of a connection whose packets all go to the L7 engine. */
export const L7_MARK = 0x80;

/** Where a packet goes, reg0[4..7], as far as a flow asks for it. */
export const DESTINATION = { tunnel: 1, gateway: 2 } as const;

/** reg0 bit: the packet's MAC addresses must be rewritten. */
export const REWRITE_MAC = 0x200;

/** An IP version: its match, conntrack zone, and the names of its addresses' fields. */
export const FAMILIES = {
  ipv4: { match: 'ip', zone: ANTREA.zone, src: 'nw_src', dst: 'nw_dst' },
  ipv6: { match: 'ipv6', zone: ANTREA.zone6, src: 'ipv6_src', dst: 'ipv6_dst' },
} as const;

/** One of FAMILIES. */
export type Family = (typeof FAMILIES)[keyof typeof FAMILIES];

/** Categories of flows: the byte below the round in their cookies. */
export const CATEGORY = { base: 1, pod: 2, policy: 3, mark: 4, zone: 5, service: 6, l7: 7 } as const;

/** A cookie as Antrea makes it: round, category, object number (32 bits). */
export function cookie(category: keyof typeof CATEGORY, object = 0): string {
  return `0x${((BigInt(ROUND) << 48n) | (BigInt(CATEGORY[category]) << 40n) | BigInt(object)).toString(16)}`;
}

/** The cookie with a mask, for deleting: every flow of a category, or of one object of it. */
export function cookieMatch(category: keyof typeof CATEGORY, object?: number): string {
  const mask = object === undefined ? '0xffffff0000000000' : '-1';
  return `cookie=${cookie(category, object ?? 0)}/${mask}`;
}

/** One flow. `match` may be empty. */
export function flow(
  table: keyof typeof TABLES,
  priority: number,
  match: string,
  actions: string,
  id: string = cookie('base'),
): string {
  return [`cookie=${id}`, `table=${TABLES[table]}`, `priority=${priority}`, match, `actions=${actions}`]
    .filter((part) => part !== '')
    .join(',');
}

/** Action that ends the flow: go on with a table. */
export function goto(table: keyof typeof TABLES): string {
  return `goto_table:${TABLES[table]}`;
}

/** Action that runs conntrack in the packet's zone and goes on with a table. */
export function ct(next: keyof typeof TABLES, ...parts: readonly string[]): string {
  return `ct(${[...parts, `table=${TABLES[next]}`, 'zone=NXM_NX_REG8[0..15]'].join(',')})`;
}

/** Priorities: Antrea's normal, high and low ones, and those of policy. */
export const PRIORITY = {
  miss: 0,
  low: 190,
  normal: 200,
  high: 210,
  dns: 64991,
  established: 64990,
  deny: 44900,
  allow: 14500,
} as const;

/** An IPv4 address as `load` wants it, an IPv6 one as `set_field` wants it for an xxreg. */
export function addressNumber(address: string): string {
  return `0x${Buffer.from(ipaddr.parse(address).toByteArray()).toString('hex')}`;
}
