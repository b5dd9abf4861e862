/**
 * What each reason means, and what to do about it. The one place where this is written: the table of docs/admin.md is made
 * from it by scripts/gen-reasons.ts, and `xmasq trace` says it. Inline code and links are Markdown, links relative to docs/.
 */
import { xmasq } from '../gen/xmasq.js';

export interface ReasonText {
  /** Whether `xmasq flows` shows it for a flow, and whether packets are counted under it. */
  readonly shownIn: '' | 'flows' | 'packets' | 'flows, packets';
  readonly meaning: string;
  /** Empty: there is nothing to say. */
  readonly action: string;
}

type ReasonKey = keyof typeof xmasq.v1.Reason;

/** In the order of their numbers. */
const TEXTS: Readonly<Record<ReasonKey, ReasonText>> = {
  REASON_NONE: {
    shownIn: '',
    meaning: 'it is fast',
    action: '',
  },
  REASON_VLAN: {
    shownIn: 'packets',
    meaning: 'the pod sends VLAN-tagged frames',
    action: 'nothing: never accelerated',
  },
  REASON_MALFORMED: {
    shownIn: 'packets',
    meaning: 'lengths or reserved bits that a kernel would not write',
    action: 'if there are many: find the pod that sends raw packets',
  },
  REASON_IP_OPTIONS: {
    shownIn: 'packets',
    meaning: 'IP options',
    action: 'nothing: never accelerated',
  },
  REASON_FRAGMENT: {
    shownIn: 'packets',
    meaning: 'the pod sends fragments',
    action: 'if there are many: smaller datagrams',
  },
  REASON_TTL: {
    shownIn: 'packets',
    meaning: 'TTL of 1 or 0',
    action: 'nothing (traceroute)',
  },
  REASON_TRACEFLOW: {
    shownIn: 'packets',
    meaning: "a DSCP value that Antrea's Traceflow uses (low two bits set)",
    action: 'choose another DSCP for the application',
  },
  REASON_PROTOCOL: {
    shownIn: 'packets',
    meaning: 'AH, ESP, IGMP, UDP-Lite or DCCP',
    action: 'nothing: never accelerated',
  },
  REASON_ICMP_TYPE: {
    shownIn: 'packets',
    meaning: 'ICMP other than echo',
    action: 'nothing',
  },
  REASON_SCTP_CONTROL: {
    shownIn: 'packets',
    meaning: 'SCTP other than DATA and SACK: conntrack has to see it',
    action: 'nothing',
  },
  REASON_TCP_SYN: {
    shownIn: 'packets',
    meaning: 'a connection begins',
    action: 'nothing',
  },
  REASON_TCP_FIN: {
    shownIn: 'packets',
    meaning: 'a connection ends',
    action: 'nothing',
  },
  REASON_DNS_REPLY: {
    shownIn: 'packets',
    meaning:
      'TCP or UDP from port 53: Antrea may want to read it; likewise the queries to another node, as the answers are slow',
    action: 'nothing',
  },
  REASON_RESERVED_PORT: {
    shownIn: 'packets',
    meaning: 'port of the tunnel, VXLAN, Geneve, IKE or WireGuard',
    action: 'nothing: stack and NIC act on them',
  },
  REASON_TOO_BIG: {
    shownIn: 'packets',
    meaning: "larger than the uplink's MTU, with the tunnel's header where that is needed",
    action: "the pods' MTU is larger than the uplink's: correct it",
  },
  REASON_GSO_SEGMENTS: {
    shownIn: 'packets',
    meaning: 'more than 64 segments in one send (large sends with a small MSS)',
    action: 'nothing; raise the MSS if there are many',
  },
  REASON_HEADER_CHANGED: {
    shownIn: 'flows, packets',
    meaning: 'TTL or DSCP differ from those that the flow was admitted with',
    action: 'nothing if rare; an application that changes DSCP all the time stays slow',
  },
  REASON_TUNNEL_CHECKSUM: {
    shownIn: 'packets',
    meaning: 'a large send in a tunnel with UDP checksums (`tunnelCsum`), or a packet without a checksum of its own',
    action: 'nothing; without `tunnelCsum` it would be fast',
  },
  REASON_UNKNOWN_ENDPOINT: {
    shownIn: 'packets',
    meaning: "the sender's or receiver's interface is no endpoint",
    action: 'see `xmasq endpoints`; is the pod announced?',
  },
  REASON_SPOOF: {
    shownIn: 'packets',
    meaning: "source MAC or address is not the pod's",
    action: "compare the pod's MAC and address with the event; else find out what the pod does",
  },
  REASON_NOT_POD: {
    shownIn: 'flows, packets',
    meaning: 'the destination is no pod of a listed node, nor a Service with such an endpoint',
    action: 'nothing for nodes, the world; else add the pod CIDR to the cluster state',
  },
  REASON_PEER_NOT_CAPABLE: {
    shownIn: 'packets',
    meaning: "the destination's node declares no capability, or another protocol version: not masqueraded",
    action: 'run XMasq there and declare it',
  },
  REASON_DRAINING: {
    shownIn: 'flows, packets',
    meaning: 'this node is drained or has not begun yet (`starting`)',
    action: 'wait; `xmasq drain --undo`',
  },
  REASON_TRAFFIC_CONTROL: {
    shownIn: 'flows, packets',
    meaning: "a TrafficControl mirrors or redirects the pod's packets",
    action: 'nothing; `xmasq endpoints` names it',
  },
  REASON_BANDWIDTH: {
    shownIn: 'flows, packets',
    meaning: "the pod's bandwidth is limited by annotations",
    action: 'nothing; `xmasq endpoints` names it',
  },
  REASON_PACKET_CAPTURE: {
    shownIn: 'flows, packets',
    meaning: "a PacketCapture listens on the pod's veth",
    action: 'nothing: it ends with the capture',
  },
  REASON_ANTREA_IPAM: {
    shownIn: 'flows, packets',
    meaning: "the pod's address is of an IPPool",
    action: 'nothing',
  },
  REASON_POD_VLAN: {
    shownIn: 'flows, packets',
    meaning: "the pod's port has a VLAN",
    action: 'nothing',
  },
  REASON_FEATURE_GATE: {
    shownIn: 'flows, packets',
    meaning: "a feature gate is off, or Antrea's NodeNetworkPolicy is on",
    action:
      'see [feature gates](feature-gates.md) and [what is excluded](antrea.md#what-is-excluded-and-why); `xmasq status` says which',
  },
  REASON_ENCAP_MODE: {
    shownIn: 'flows, packets',
    meaning: 'a `trafficEncapMode` of Antrea that XMasq does not support',
    action: 'nothing; `xmasq status` names it',
  },
  REASON_ENCRYPTION: {
    shownIn: 'flows, packets',
    meaning: 'Antrea encrypts the traffic between nodes',
    action: 'nothing: it must not leave in the clear',
  },
  REASON_TUNNEL_TYPE: {
    shownIn: 'flows, packets',
    meaning: 'a tunnel that is neither Geneve nor VXLAN',
    action: 'nothing',
  },
  REASON_BRIDGING: {
    shownIn: 'flows, packets',
    meaning: "Antrea's bridging mode",
    action: 'nothing',
  },
  REASON_MULTICLUSTER: {
    shownIn: 'flows, packets',
    meaning: 'the cluster has a multi-cluster gateway',
    action: 'nothing',
  },
  REASON_HW_OFFLOAD: {
    shownIn: 'flows, packets',
    meaning: 'Open vSwitch offloads to the NIC',
    action: 'nothing: that is faster still',
  },
  REASON_FLOW_RESTORE: {
    shownIn: 'flows, packets',
    meaning: 'Open vSwitch waits for Antrea to restore its flows: no new flow is admitted',
    action: 'nothing: it takes seconds; if it stays, look at antrea-agent',
  },
  REASON_CT_MISSING: {
    shownIn: 'flows, packets',
    meaning: 'no conntrack entry in the zone',
    action: "first packets of a connection are normal; else is `conntrack.zone` Antrea's? does the slow path drop it?",
  },
  REASON_CT_UNCONFIRMED: {
    shownIn: 'flows, packets',
    meaning: 'the entry is not confirmed yet',
    action: 'nothing',
  },
  REASON_CT_UNREPLIED: {
    shownIn: 'flows, packets',
    meaning: 'no reply was seen',
    action: 'nothing: one-way traffic without any reply stays slow',
  },
  REASON_CT_STATE: {
    shownIn: 'flows, packets',
    meaning: 'TCP is not ESTABLISHED, UDP not ASSURED, SCTP not ESTABLISHED',
    action: 'nothing: UDP takes 2 s of traffic both ways; half-closed TCP stays slow',
  },
  REASON_CT_NOT_ALLOWED: {
    shownIn: 'flows, packets',
    meaning: 'committed, but Antrea has not allowed it (mark nibble 0)',
    action: 'nothing, policy may deny it',
  },
  REASON_CT_SOURCE: {
    shownIn: 'flows, packets',
    meaning: 'Antrea saw it come from neither the tunnel nor a local pod',
    action: 'nothing: host or external traffic',
  },
  REASON_CT_SNAT: {
    shownIn: 'flows, packets',
    meaning: 'source NAT',
    action: 'nothing',
  },
  REASON_CT_HAIRPIN: {
    shownIn: 'flows, packets',
    meaning: "a Service's hairpin",
    action: 'nothing',
  },
  REASON_CT_L7: {
    shownIn: 'flows, packets',
    meaning: 'under a layer 7 policy',
    action: 'nothing',
  },
  REASON_CT_SERVICE: {
    shownIn: 'flows, packets',
    meaning: 'a Service by DSR, of another cluster, or on a kernel that needs approvals',
    action: 'nothing',
  },
  REASON_CT_STATUS: {
    shownIn: 'flows, packets',
    meaning: 'dying, template, helper, sequence adjustment, offload, source NAT',
    action: 'nothing',
  },
  REASON_NO_APPROVAL: {
    shownIn: 'flows, packets',
    meaning: 'needs an [approval](admin.md#approvals) and has none (yet)',
    action: 'if it stays: `conntrack -L` for the real reason; is the sidecar running?',
  },
  REASON_SLOT_TAKEN: {
    shownIn: 'flows, packets',
    meaning: 'another pod pair uses the same protocol and ports between the two nodes',
    action: 'nothing; only one of the two can be masqueraded',
  },
  REASON_SLOT_RECENT: {
    shownIn: 'flows, packets',
    meaning:
      'another pod pair used them less than 120 s ago; also: the same flow was ended less than 500 ms ago, or the maps are that young',
    action: 'wait',
  },
  REASON_MAP_FULL: {
    shownIn: 'flows, packets',
    meaning: 'no room in `flows` or `slots`',
    action: 'see MAP in `xmasq status`; raise `maps.flows`, `maps.slots`',
  },
  REASON_KEY_EXCHANGE: {
    shownIn: 'flows, packets',
    meaning: "admitted; the nodes do not know each other's keys yet. Also the packet that admits a same-node flow",
    action: 'some packets; if it stays: see [Troubleshooting](admin.md#troubleshooting)',
  },
  REASON_KEY_REJECTED: {
    shownIn: 'flows',
    meaning: 'the peer did not know its key; not learned again for 1 s to 60 s',
    action: 'nothing if it passes (the peer was flushed or lost its state); else see `reject-received`',
  },
  REASON_PEER_SILENT: {
    shownIn: 'flows, packets',
    meaning: "for 5 s nothing has proved that the peer's data plane hears us",
    action: 'nothing while idle; else is the peer drained, its XMasq removed? `xmasq status` there',
  },
  REASON_BLACK_HOLE: {
    shownIn: 'flows, packets',
    meaning: 'sent fast, and neither a fast packet nor an ack came for 500 ms',
    action:
      "if it comes again: a firewall or a cloud's rules drop the pods' protocols and ports between the nodes; the pod does not answer",
  },
  REASON_UNPROVEN: {
    shownIn: 'flows, packets',
    meaning: 'no probe has shown (lately) that the underlay carries masqueraded packets of this kind to the peer',
    action:
      "nothing: it takes a second at first; if it stays, a firewall or a cloud's rules drop them, and `encap` is what is left",
  },
  REASON_MODE: {
    shownIn: 'flows, packets',
    meaning: "`transmitMode` is another one, or one of the two nodes has no transport address of the pods' family",
    action: 'nothing; see [transmit modes](configuration.md#transmit-modes)',
  },
  REASON_NO_NEIGHBOUR: {
    shownIn: 'flows, packets',
    meaning: 'no route by the uplink, or no resolved next hop, to the peer',
    action: "`ip route get`, `ip neigh` for the peer's address; must leave by the uplink",
  },
  REASON_CLOSED: {
    shownIn: 'packets',
    meaning: 'a RST of a flow that was not fast',
    action: 'nothing',
  },
  REASON_STALE: {
    shownIn: 'flows, packets',
    meaning:
      'pod, peer or slot changed since the flow was learned; same-node flows whose other pod has gone, for 120 s',
    action: 'nothing',
  },
  REASON_YOUNG: {
    shownIn: 'packets',
    meaning: 'a TCP connection that may be over after its first answer, see [admission](design.md#4-admission)',
    action: 'nothing: it is admitted when it goes on',
  },
};

/** Text of a reason by its number; undefined: this build does not know it. */
export function reasonText(code: number): ReasonText | undefined {
  const key = (xmasq.v1.Reason as Readonly<Record<number, string | undefined>>)[code];
  return key === undefined ? undefined : TEXTS[key as ReasonKey];
}

/** Markdown as plain text: `[text](target)` is `text (docs/target)`. */
export function plain(markdown: string): string {
  return markdown.replaceAll('`', '').replace(/\[([^\]]*)\]\(([^)]*)\)/g, '$1 (docs/$2)');
}

/** The table of docs/admin.md, cell by cell, without its heading. */
export function reasonRows(names: readonly { readonly code: number; readonly name: string }[]): string[][] {
  return names.map(({ code, name }) => {
    const { shownIn = '', meaning = '', action = '' } = reasonText(code) ?? {};
    // Links within the document need not name it.
    return [`\`${name}\``, shownIn, ...[meaning, action].map((text) => text.replaceAll('](admin.md#', '](#'))];
  });
}
