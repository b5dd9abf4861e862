/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Everything the data plane and the sidecar share: map keys and values, enums, bounds. The sidecar's codecs are
 * generated from the BTF of these types, so this is the one place where a layout is written down.
 *
 * Conventions: __be16/__be32 are in network byte order, everything else in host byte order. Times are nanoseconds of
 * CLOCK_MONOTONIC_COARSE (bpf_ktime_get_coarse_ns), 0 = never. Padding is explicit and zero: keys are compared bytewise.
 */
#pragma once

#include <linux/types.h>

/* Bumped whenever a key or value below changes its meaning without changing its size. */
#define XMASQ_LAYOUT_VERSION 6

/* Version of the key exchange and of the marker format; peers with another one are not peers. */
#define XMASQ_PROTOCOL_VERSION 3

#define XMASQ_MAX_ENDPOINTS 1024
#define XMASQ_MAX_PEERS 8192
#define XMASQ_MAX_FLOWS 65536
#define XMASQ_MAX_SLOTS 131072
#define XMASQ_MAX_APPROVALS 65536
#define XMASQ_MAX_REFUSALS 65536

/* A pod's TCP connection is admitted when its socket has sent so many segments with data, or so many in all, the SYN included. */
#define XMASQ_YOUNG_DATA 2
#define XMASQ_YOUNG_SEGMENTS 6
#define XMASQ_MAX_AWAITED 4096 /* a power of two */

#define XMASQ_MS 1000000ULL
#define XMASQ_SEC 1000000000ULL

/* How long things last. The protocol model in the tests uses the same names. */
#define XMASQ_VERIFY_NS (100 * XMASQ_MS)    /* flow: neighbour, slot, silence */
#define XMASQ_MTU_TOLD_NS (20 * XMASQ_MS)   /* flow: its next hop with each packet, after its node was told of an MTU */
#define XMASQ_RECHECK_NS XMASQ_SEC          /* flow and slot: conntrack */
#define XMASQ_SEND_LIFE_NS (5 * XMASQ_SEC)  /* no sign of life of the peer: send slow */
#define XMASQ_INTERPRET_NS (30 * XMASQ_SEC) /* no sign of life of the peer: its packets are plain packets */
#define XMASQ_SILENCE_NS (500 * XMASQ_MS)   /* sending fast with no answer for so long: black hole ... */
#define XMASQ_SILENCE_PACKETS 2             /* ... if at least so many were sent since: an ACK alone has no answer */
#define XMASQ_PAUSE_NS (2 * XMASQ_SEC)      /* a pod that was silent for so long does not wait for an answer */
#define XMASQ_TOMBSTONE_NS (120 * XMASQ_SEC) /* a freed slot is not given to other pods for so long */
#define XMASQ_QUIET_NS (500 * XMASQ_MS)      /* nor to the same pods for so long: packets under way would meet it */
#define XMASQ_CLOSING_NS XMASQ_SEC           /* after a FIN, packets that were under way are still restored */
#define XMASQ_BACKOFF_MIN_NS (10 * XMASQ_MS) /* refused admission: first and longest pause */
#define XMASQ_BACKOFF_MAX_NS XMASQ_SEC
#define XMASQ_REFUSAL_TRIES 4         /* lookups before the pauses start: a handshake takes a few packets */
#define XMASQ_REJECT_MIN_NS XMASQ_SEC /* a rejected key is not learned again for so long, doubling */
#define XMASQ_REJECT_MAX_NS (60 * XMASQ_SEC)
#define XMASQ_REJECTS_PER_SEC 100         /* rejections sent to one peer */
#define XMASQ_ACK_NS (150 * XMASQ_MS)     /* a flow that only receives tells its peer so often that it does */
#define XMASQ_HEADER_CHANGE_NS XMASQ_SEC  /* TTL or DSCP changed for so long: exchange keys anew */
#define XMASQ_PROVEN_NS (60 * XMASQ_SEC)  /* path: an answered probe, or a masqueraded packet, proves it for so long */
#define XMASQ_REPROBE_NS (20 * XMASQ_SEC) /* ... and while flows use it, it is probed again so often */
#define XMASQ_PROBE_MIN_NS (100 * XMASQ_MS) /* unanswered probes: first and longest pause */
#define XMASQ_PROBE_MAX_NS (8 * XMASQ_SEC)
#define XMASQ_ANSWER_NS XMASQ_SEC          /* an answer to a probe is believed for so long after it was sent */
#define XMASQ_REKEY_NS (30 * XMASQ_SEC)    /* a flow that found no slot is admitted anew after so long at most */
#define XMASQ_MODE_HOLD_NS (5 * XMASQ_SEC) /* path: shortest time between two changes to masquerade */

/* struct xmasq_config.flags */
enum xmasq_config_flag {
	XMASQ_CFG_ADMIT = 1, /* admit new flows and announce keys */
	XMASQ_CFG_SEND = 2,  /* send on the fast path */
	XMASQ_CFG_CT_LOOKUP =
		4, /* the kernel's conntrack lookup takes a zone (found by a probe): TCP and UDP need no approval */
	XMASQ_CFG_MASQUERADE = 8, /* packets to peers that can restore them may be masqueraded ... */
	XMASQ_CFG_PROBE = 16,     /* ... once the underlay has proved to carry such packets */
	XMASQ_CFG_ENCAP = 32,     /* what is not masqueraded may be sent in a copy of the tunnel's header */
	XMASQ_CFG_DIRECT = 64, /* some peers are reached without a tunnel: pod packets cross the uplink as they are */
};

/*
 * An IPv6 address, or an IPv4 one as ::ffff:a.b.c.d (RFC 4291 2.5.5.2); all zero = none. One form for both, so that maps and
 * most code need not know the family.
 */
struct xmasq_addr {
	__be32 word[4];
};

/*
 * What the sidecar tells the programs about this node: the single element of `config`. Written by the sidecar only. The first
 * two members, the map's name, and the bits ADMIT and SEND stay as they are: by them a sidecar takes another version's data plane
 * out of use (plugin/src/dataplane/common-config.ts).
 */
struct xmasq_config {
	__u32 layout_version; /* XMASQ_LAYOUT_VERSION */
	__u32 flags;          /* enum xmasq_config_flag */
	__u32 magic[4];       /* random per boot: marks our own packets in skb->cb on their way to uplink_egress */
	__u64 state_since;    /* when the flow and slot maps were created */
	struct xmasq_addr uplink_addr4; /* the node's transport addresses, by family, and the devices that have them */
	struct xmasq_addr uplink_addr6;
	__u32 uplink_ifindex4;
	__u32 uplink_ifindex6;
	__u32 hz;       /* jiffies per second, measured */
	__u16 ct_zone4; /* Antrea's main zones: 65520 for IPv4, 65510 for IPv6 */
	__u16 ct_zone6;
	__be16 tunnel_port;   /* UDP port of the overlay; carries the control messages, too */
	__u8 excluded_local;  /* enum xmasq_reason: why nothing between pods of this node is accelerated; 0 = it is */
	__u8 excluded_remote; /* the same for traffic with other nodes */
	__u8 paused;          /* enum xmasq_reason: why no new flow is admitted; present ones go on */
	__u8 pad;
	__u16 xdp_vlan; /* the uplink is a VLAN, by this number, of the device that uplink_xdp is on; 0 = it is that device */
};

enum xmasq_endpoint_flag {
	XMASQ_EP_PRESENT = 1,
};

/* One local pod interface: an element of `endpoints`, index = endpoint id (0 is never used). Written by the sidecar only. */
struct xmasq_endpoint {
	struct xmasq_addr addr4; /* the pod's addresses, one of each family at most */
	struct xmasq_addr addr6;
	__u32 ifindex; /* of the host-side veth */
	__u32 flags;   /* enum xmasq_endpoint_flag */
	__u32 epoch;   /* changing it invalidates every flow of the endpoint */
	__u8 mac[6];   /* of the pod's own interface */
	__u8 excluded; /* enum xmasq_reason: why the pod is never accelerated (its packets cannot forge keys either); 0 = it is */
	__u8 pad;
};

enum xmasq_peer_flag {
	XMASQ_PEER_PRESENT = 1,
	XMASQ_PEER_CAPABLE = 2, /* declares XMASQ_PROTOCOL_VERSION */
	/* Antrea routes to its pods of that family without a tunnel: in hybrid mode each family has subnets of its own */
	XMASQ_PEER_DIRECT4 = 4,
	XMASQ_PEER_DIRECT6 = 8,
};

/* Another node: an element of `peers`, index = peer id (0 is never used). Written by the sidecar only. */
struct xmasq_peer {
	struct xmasq_addr addr4; /* transport addresses */
	struct xmasq_addr addr6;
	__u32 flags; /* enum xmasq_peer_flag */
	__u32 epoch; /* changing it invalidates every flow with the peer */
};

/* What the programs know of a peer: an element of `peer_state`, same index. Written by the programs only. */
struct xmasq_peer_state {
	__u64 last_life;      /* last valid masqueraded or announcing packet, or acknowledgement, of any flow */
	__u64 last_confirmed; /* ... that proves that the peer hears us: all but announcements with A=0 */
	__u64 reject_window;  /* start of the current second of rejections */
	__u64 reject_count;   /* rejections sent in it */
	__u64 mtu_told;       /* last ICMP error that told this node's stack of a smaller MTU on the way to the peer */
#ifdef XMASQ_NEXT_LAYOUT
	__u64 reserved; /* another layout, for tests of upgrades */
#endif
};

/* Does the underlay carry masqueraded packets of all kinds? A firewall may judge each by its own rules. */
enum xmasq_path_class {
	XMASQ_PATH_TCP = 0,
	XMASQ_PATH_UDP = 1,
	XMASQ_PATH_OTHER = 2,
	XMASQ_PATH_CLASSES = 3, /* not a class: the number of them */
};

/*
 * What the programs know of the way to a peer, for one family and class of packets: an element of `paths`, index = (peer id
 * * 2 + (1 for IPv6)) * XMASQ_PATH_CLASSES + enum xmasq_path_class. Written by the programs only.
 */
struct xmasq_path {
	__u64 proven_at; /* last answered probe, or masqueraded packet from the peer after a probe of ours was answered */
	__u64 probe_at;   /* no probe before */
	__u64 probe_wait; /* pause after the next probe, doubling while they are not answered */
	__u64 hole_at;    /* masqueraded packets were lost: not proven since then */
	__u64 probes;     /* sent */
	__u64 answers;    /* received */
	__u64 changed_at; /* last change between masquerade and encap or slow */
	__u32 changes;
	__u32 masquerade; /* 1: flows to the peer are masqueraded; 0: they are not (yet) */
	__u32 awaited;    /* number of the probe that an answer would be believed about, and 1; 0: none */
	__u32 pad;
};

enum xmasq_dest_kind {
	XMASQ_DEST_NONE = 0, /* e.g. a gateway address inside a pod CIDR */
	XMASQ_DEST_PEER = 1,
};

/* Longest-prefix-match key of `destinations`: which node a pod address belongs to. */
struct xmasq_prefix {
	__u32 prefixlen; /* bits, 0..128; of an IPv4 prefix 96 more than it says */
	struct xmasq_addr addr;
};

struct xmasq_destination {
	__u32 kind; /* enum xmasq_dest_kind */
	__u32 peer; /* peer id */
};

/*
 * A flow as the local pod sends it. ICMP echo: sport = identifier, dport = ICMP type of what the pod sends (8 or 0,
 * ICMPv6 128 or 129), both in network byte order. Protocols without ports: 0.
 */
struct xmasq_flow_key {
	struct xmasq_addr saddr;
	struct xmasq_addr daddr;
	__be16 sport;
	__be16 dport;
	__u32 ifindex; /* of the veth the flow was learned on: no other veth can hit the entry */
	__u8 proto;
	__u8 pad[3];
};

/* Addresses and ports of a packet. */
struct xmasq_tuple {
	struct xmasq_addr saddr;
	struct xmasq_addr daddr;
	__be16 sport; /* ICMP echo and protocols without ports: as in struct xmasq_flow_key */
	__be16 dport;
};

enum xmasq_flow_flag {
	XMASQ_FLOW_LOCAL = 1,         /* the other pod is on this node: no keys */
	XMASQ_FLOW_HAVE_KEY = 2,      /* peer_key holds the peer's key */
	XMASQ_FLOW_ANNOUNCED = 4,     /* at least one packet carried our key */
	XMASQ_FLOW_PEER_COMPLETE = 8, /* the peer has seen an announcement of ours: it can restore */
	XMASQ_FLOW_APPROVED = 16,     /* admitted by an approval, not by the kernel's lookup */
	XMASQ_FLOW_SERVICE = 32,      /* AntreaProxy translates the connection: out differs from the key */
	XMASQ_FLOW_UNLEARNED = 64,    /* same-node Service flows: how the slow path delivers them is not known yet */
	XMASQ_FLOW_KEYED = 128,       /* has a slot: keys are exchanged, and it may be masqueraded */
	XMASQ_FLOW_DIRECT = 256,      /* Antrea routes to the peer without a tunnel */
	XMASQ_FLOW_RX_LEARNED = 512,  /* rx_dmac, rx_smac, rx_ttl: how the slow path delivers is known */
};

/* How a packet was carried. */
enum xmasq_mode {
	XMASQ_MODE_SLOW = 0,
	XMASQ_MODE_LOCAL = 1,
	XMASQ_MODE_MASQUERADE = 2,
	XMASQ_MODE_ENCAP = 3,
	XMASQ_MODE_DIRECT = 4,
};

/* The longest header of a tunnel: IPv6, UDP, Geneve without options or VXLAN, and the inner Ethernet header. */
#define XMASQ_MAX_ENCAP 70

/*
 * A flow admitted on this node: value of `flows`. The element may be freed and used again while a program still reads it:
 * gen and gen2 are equal and unchanged exactly while the rest belongs to the flow that was looked up.
 */
struct xmasq_flow {
	__u32 gen;          /* random per entry */
	__u32 flags;        /* enum xmasq_flow_flag */
	__u64 tx_packets;   /* sent on the fast path; segments of a GSO packet count one by one */
	__u64 tx_bytes;     /* likewise, IP total length of each segment */
	__u64 masq_packets; /* those of tx_packets that were masqueraded */
	__u64 slow_packets; /* sent on the slow path since admission */
	__u64 admitted_at;
	__u64 last_tx;          /* last packet of the pod, on either path */
	__u64 tick;             /* jiffies when last_tx was read from the clock */
	__u64 last_rx_slow;     /* last packet delivered by the slow path */
	__u64 verify_at;        /* next look at slot, peer and neighbour */
	__u64 recheck_at;       /* next look at conntrack */
	__u64 fast_since;       /* first packet sent with peer_key */
	__u64 unanswered_since; /* sending fast, and nothing heard since then */
	__u32 unanswered_tx;    /* masq_packets at that time; these two wrap */
	__u32 unanswered_heard; /* ... and what had come: the slot's rx_packets and acks */
	__u64 hole_until;       /* black hole: slow until then; same-node flows whose other pod is gone: likewise;
				   flows that found no slot: not admitted anew until then */
	__u64 reject_until;     /* reject_key is not learned until then */
	__u64 deviating_since;  /* packets differ from ttl and dscp since then */
	__u64 rx_packets; /* received on the fast path without a slot: encapsulated or direct; as rx_bytes, by segment */
	__u64 rx_bytes;
	__u64 last_rx;       /* the last of them */
	__u64 rx_recheck_at; /* next look at conntrack for them */
	__u32 csum_diff;     /* pod addresses -> node addresses, for the transport checksum */
	__u32 ip_sum;        /* sum of the constant 16-bit words of the masqueraded IP header */
	__u32 endpoint;      /* id */
	__u32 endpoint_epoch;
	__u32 peer; /* id; same-node flows: endpoint id of the other pod */
	__u32 peer_epoch;
	__u32 slot_gen;               /* generation of our slot for the flow's ports */
	__u32 out_ifindex;            /* uplink; same-node flows: veth of the other pod */
	struct xmasq_addr node_saddr; /* addresses on the underlay: the nodes', but of direct flows the pods' */
	struct xmasq_addr node_daddr;
	struct xmasq_tuple out; /* what the packet is for the other pod: the key, or AntreaProxy's translation of it */
	__u8 dmac[6]; /* Ethernet addresses on the underlay, as in a frame; same-node Service flows: as the slow path delivers */
	__u8 smac[6];
	__u8 via_mac[6]; /* same-node flows: where the pod sends its frames; others go slow */
	__u8 pod_mac[6]; /* the pod's own, for the spoof guard; the two as in a frame */
	__u8 peer_key;
	__u8 own_key;
	__u8 ttl;     /* as the pod sends it; other packets go slow */
	__u8 tos;     /* DSCP << 2, likewise */
	__u8 blocked; /* enum xmasq_reason: why the flow, though admitted, is slow; 0 = it is not */
	__u8 reject_key;
	__u8 reject_level; /* doublings of the pause */
	__u8 hole_level;
	__u8 proto;
	__u8 out_ttl; /* as the slow path sends it: inside the tunnel, or direct; same-node Service flows: as it delivers it */
	__u8 mode;                   /* enum xmasq_mode: of the last packet */
	__u8 encap_len;              /* bytes of encap, 0: none known */
	__u8 encap[XMASQ_MAX_ENCAP]; /* outer IP, UDP, tunnel and inner Ethernet header as the slow path writes them */
	__u8 rx_dmac[6];             /* packets from the peer's pod as the slow path delivers them */
	__u8 rx_smac[6];
	__u8 rx_ttl;      /* ... and by how much it lowers their TTL on this node */
	__u8 rx_wire_ttl; /* TTL of the last one on the wire */
	__u8 unkeyed;     /* enum xmasq_reason: why the flow has no slot, 0 if it has one */
	__u8 pad;
	__u32 tx_gen; /* equal to gen once encap, encap_len and out_ttl are this flow's; 0 while they change */
	__u32 mtu;    /* of out_ifindex */
	__u32 gen2;
};

/* What a masqueraded packet is looked up by: value of `slots`. Ports as in xmasq_flow_key, but as the peer's pod sends. */
struct xmasq_slot_key {
	struct xmasq_addr peer; /* the peer's transport address */
	__be16 sport;
	__be16 dport;
	__u8 proto;
	__u8 pad[3];
};

enum xmasq_slot_state {
	XMASQ_SLOT_ACTIVE = 1,
	XMASQ_SLOT_CLOSING = 2,   /* FIN seen: restores until freed_at + XMASQ_CLOSING_NS */
	XMASQ_SLOT_TOMBSTONE = 3, /* remembers the last key and the pods */
};

enum xmasq_slot_flag {
	XMASQ_SLOT_COMPLETE = 1,  /* MACs, TTL and DSCP are learned from an announcing packet: it can restore */
	XMASQ_SLOT_PEER_FAST = 2, /* the flow knows that the peer sends fast */
	XMASQ_SLOT_SHARED = 4,    /* packets of the nodes' own connection on these ports come with other keys */
};

/*
 * Restore slot: how a masqueraded packet becomes the pod's packet again. Changed in place under `lock` (a try-lock), read
 * without it: gen is odd while it changes, and different afterwards.
 */
struct xmasq_slot {
	__u32 gen;
	__u32 lock;
	__u64 rx_packets; /* restored; segments count one by one */
	__u64 rx_bytes;   /* likewise, IP total length of each segment */
	__u64 last_rx;    /* last restored packet, or acknowledgement from the peer that ours arrive */
	__u64 tick;       /* jiffies when a restored packet last had last_rx read from the clock */
	__u64 recheck_at;
	__u64 freed_at;
	__u64 ack_at;            /* next acknowledgement, see XMASQ_ACK_NS */
	__u64 acked_tx;          /* the flow's masq_packets at the last one */
	struct xmasq_addr saddr; /* what the local pod takes the peer's pod for: its address, or a Service's */
	struct xmasq_addr daddr; /* the local pod */
	struct xmasq_addr pod;   /* the peer's pod */
	__u32 ifindex;           /* host-side veth of the local pod */
	__u32 endpoint;          /* id */
	__u32 endpoint_epoch;
	__u32 peer; /* id */
	__u32 peer_epoch;
	__u32 csum_diff; /* node addresses -> pod addresses, for the transport checksum */
	__u32 ip_sum;    /* sum of the constant 16-bit words of the restored IPv4 header */
	__u8 dmac[6];    /* Ethernet addresses as the slow path delivers them, in the order of a frame */
	__u8 smac[6];
	__u8 key;
	__u8 state; /* enum xmasq_slot_state */
	__u8 flags; /* enum xmasq_slot_flag */
	__u8 ttl;   /* as the slow path delivers it */
	__u8 tos;   /* DSCP << 2, likewise */
	__u8 pad;
	__be16 sport;      /* goes with saddr */
	__u32 acks;        /* acknowledgements from the peer that ours arrive; wraps */
	__u8 wire_dmac[6]; /* of this node, as masqueraded packets come with it */
	__u8 pad2[2];
};

/* The sidecar's word that conntrack allows a flow (key: xmasq_flow_key): value of `approvals`. */
struct xmasq_approval {
	__u64 expires; /* lease */
};

/* A flow that was not admitted (key: xmasq_flow_key): value of `refusals`. */
struct xmasq_refusal {
	__u64 until;   /* no lookup before */
	__u64 backoff; /* nanoseconds, the last pause */
	__u64 packets; /* seen since the first refusal */
	__u32 tries;
	__u32 reason; /* enum xmasq_reason */
};

/* Why a packet or a flow is not on the fast path. Names in protobuf, metrics and the command line come from here. */
enum xmasq_reason {
	XMASQ_REASON_NONE = 0,
	/* the packet */
	XMASQ_REASON_VLAN,       /* VLAN-tagged frame */
	XMASQ_REASON_MALFORMED,  /* lengths or reserved bits that a kernel's stack would not write */
	XMASQ_REASON_IP_OPTIONS, /* IPv4 options, or an IPv6 extension header other than a fragment's */
	XMASQ_REASON_FRAGMENT,
	XMASQ_REASON_TTL,          /* TTL <= 1 */
	XMASQ_REASON_TRACEFLOW,    /* DSCP of Antrea's Traceflow (low bits 11) */
	XMASQ_REASON_PROTOCOL,     /* never accelerated: AH, ESP, IGMP, UDP-Lite, DCCP */
	XMASQ_REASON_ICMP_TYPE,    /* ICMP other than echo */
	XMASQ_REASON_SCTP_CONTROL, /* SCTP chunk other than DATA and SACK */
	XMASQ_REASON_TCP_SYN,
	XMASQ_REASON_TCP_FIN,
	XMASQ_REASON_DNS_REPLY, /* source port 53: Antrea may want to read it; or the queries, but to a pod of this node */
	XMASQ_REASON_RESERVED_PORT,  /* tunnel, IKE or WireGuard port: stack and NIC act on it before us */
	XMASQ_REASON_TOO_BIG,        /* larger than the uplink's MTU */
	XMASQ_REASON_GSO_SEGMENTS,   /* more than 64 segments */
	XMASQ_REASON_HEADER_CHANGED, /* TTL or DSCP is not the one exchanged */
	XMASQ_REASON_TUNNEL_CHECKSUM, /* segments in a tunnel with UDP checksums: only the tunnel's device can write them */
	/* the sender and the destination */
	XMASQ_REASON_UNKNOWN_ENDPOINT,
	XMASQ_REASON_SPOOF,   /* source MAC or address is not the pod's */
	XMASQ_REASON_NOT_POD, /* the destination is not a pod's address */
	XMASQ_REASON_PEER_NOT_CAPABLE,
	XMASQ_REASON_DRAINING, /* this node does not accelerate now */
	/* excluded pods (one of the two, if both are on this node) */
	XMASQ_REASON_TRAFFIC_CONTROL, /* a TrafficControl mirrors or redirects its packets */
	XMASQ_REASON_BANDWIDTH,       /* limited by the bandwidth plugin */
	XMASQ_REASON_PACKET_CAPTURE,  /* a PacketCapture listens on its veth */
	XMASQ_REASON_ANTREA_IPAM,     /* its address is of an IPPool */
	XMASQ_REASON_POD_VLAN,        /* its port has a VLAN */
	/* excluded nodes */
	XMASQ_REASON_FEATURE_GATE, /* the gate XMasq is off */
	XMASQ_REASON_ENCAP_MODE,   /* a trafficEncapMode that is not supported (yet) */
	XMASQ_REASON_ENCRYPTION,   /* IPsec or WireGuard between the nodes */
	XMASQ_REASON_TUNNEL_TYPE,  /* a tunnel other than Geneve and VXLAN */
	XMASQ_REASON_BRIDGING,     /* the uplink is a port of Antrea's bridge */
	XMASQ_REASON_MULTICLUSTER, /* this cluster has a multi-cluster gateway */
	XMASQ_REASON_HW_OFFLOAD,   /* Open vSwitch offloads flows to the NIC */
	XMASQ_REASON_FLOW_RESTORE, /* Open vSwitch waits for its flows: no new flow is admitted */
	/* admission */
	XMASQ_REASON_CT_MISSING, /* no conntrack entry in the zone */
	XMASQ_REASON_CT_UNCONFIRMED,
	XMASQ_REASON_CT_UNREPLIED,
	XMASQ_REASON_CT_STATE,       /* TCP not ESTABLISHED, UDP not ASSURED */
	XMASQ_REASON_CT_NOT_ALLOWED, /* mark nibble 0: committed, but not allowed */
	XMASQ_REASON_CT_SOURCE,      /* mark nibble neither tunnel nor local pod */
	XMASQ_REASON_CT_SNAT,
	XMASQ_REASON_CT_HAIRPIN,
	XMASQ_REASON_CT_L7,
	XMASQ_REASON_CT_SERVICE,  /* translated, but not for a pod of this node by AntreaProxy: DSR, other clusters */
	XMASQ_REASON_CT_STATUS,   /* dying, template, helper, sequence adjustment, offload, source NAT */
	XMASQ_REASON_NO_APPROVAL, /* needs an approval and has none (yet) */
	XMASQ_REASON_SLOT_TAKEN,  /* another pod pair uses the same ports between the two nodes */
	XMASQ_REASON_SLOT_RECENT, /* ... or did so less than 120 s ago */
	XMASQ_REASON_MAP_FULL,
	/* admitted, but slow for now */
	XMASQ_REASON_KEY_EXCHANGE, /* the two nodes do not know each other's key yet */
	XMASQ_REASON_KEY_REJECTED,
	XMASQ_REASON_PEER_SILENT,  /* no sign of life of the peer's data plane for 5 s */
	XMASQ_REASON_BLACK_HOLE,   /* sent fast and heard nothing */
	XMASQ_REASON_UNPROVEN,     /* the underlay has not proved to carry masqueraded packets */
	XMASQ_REASON_MODE,         /* the configured mode is another one */
	XMASQ_REASON_NO_NEIGHBOUR, /* no route or no resolved next hop to the peer */
	XMASQ_REASON_CLOSED,       /* SYN, FIN or RST ended the flow */
	XMASQ_REASON_STALE,        /* endpoint, peer or slot changed since the flow was learned */
	/* before admission */
	XMASQ_REASON_YOUNG, /* TCP: the pod has sent so little that the connection may be over soon */
	XMASQ_REASON_COUNT, /* not a reason: the number of them */
};

/* Decisions of the programs: index into `counters`. */
enum xmasq_counter {
	XMASQ_COUNTER_FAST_TX = 0,    /* pod packets sent masqueraded (buffers, not segments) */
	XMASQ_COUNTER_FAST_LOCAL,     /* pod packets handed to a pod of the same node */
	XMASQ_COUNTER_SLOW_TX,        /* pod packets left to the slow path */
	XMASQ_COUNTER_ANNOUNCED,      /* ... that carried our key */
	XMASQ_COUNTER_MARKER_CLEARED, /* ... whose marker bit was cleared */
	XMASQ_COUNTER_SLOW_RX,        /* packets delivered to pods by the slow path */
	XMASQ_COUNTER_KEY_LEARNED,    /* announcements read */
	XMASQ_COUNTER_RESTORED,       /* masqueraded packets restored and delivered */
	XMASQ_COUNTER_UNKNOWN_KEY,    /* masqueraded packets dropped: nobody can restore them */
	XMASQ_COUNTER_INCOMPLETE,     /* ... dropped: the slot has learned no header yet */
	XMASQ_COUNTER_UNKNOWN_PASSED, /* look masqueraded, but belong to a socket or connection of the node: passed */
	XMASQ_COUNTER_REJECT_SENT,
	XMASQ_COUNTER_REJECT_LIMITED,  /* not sent: over 100/s to one peer */
	XMASQ_COUNTER_REJECT_RECEIVED, /* ... that matched a flow */
	XMASQ_COUNTER_REJECT_IGNORED,  /* ... that matched nothing */
	XMASQ_COUNTER_ACK_SENT,
	XMASQ_COUNTER_ACK_RECEIVED,
	XMASQ_COUNTER_NODE_CLEARED, /* node-to-node packets whose marker bit was cleared */
	XMASQ_COUNTER_OWN_SEEN,     /* our own packets at uplink_egress */
	XMASQ_COUNTER_OWN_LOST,     /* pod packets with a marker but without our magic there: dropped */
	XMASQ_COUNTER_FLOW_ADMITTED,
	XMASQ_COUNTER_FLOW_DEMOTED, /* conntrack, epoch or slot no longer allow it */
	XMASQ_COUNTER_FLOW_CLOSED,  /* SYN, FIN or RST */
	XMASQ_COUNTER_CT_LOOKUP,
	XMASQ_COUNTER_CT_EXTENDED, /* conntrack timeouts prolonged */
	XMASQ_COUNTER_CT_KILLED,   /* conntrack entries expired after a RST, or at a SYN: see docs/design.md 6 */
	XMASQ_COUNTER_SYN_DROPPED, /* SYN that the slow path passes as a part of a connection that is over */
	XMASQ_COUNTER_BLACK_HOLE,
	XMASQ_COUNTER_FAST_ENCAP,   /* pod packets sent in a tunnel header of our own (buffers) */
	XMASQ_COUNTER_FAST_DIRECT,  /* pod packets sent to the uplink as they are */
	XMASQ_COUNTER_RESTORED_XDP, /* those of the restored that were it before the stack made buffers of them */
	XMASQ_COUNTER_DECAPSULATED, /* tunnel packets taken to the pod past the tunnel device */
	XMASQ_COUNTER_DIRECT_RX,    /* packets of remote pods taken from the uplink to the pod */
	XMASQ_COUNTER_TX_LEARNED,   /* flows whose header on the slow path was learned */
	XMASQ_COUNTER_PROBE_SENT,
	XMASQ_COUNTER_PROBE_RECEIVED,     /* ... from peers, and answered */
	XMASQ_COUNTER_PROBE_ANSWERED,     /* answers to ours */
	XMASQ_COUNTER_PATH_CHANGED,       /* paths that began or ceased to carry masqueraded packets */
	XMASQ_COUNTER_ICMP_ERROR,         /* errors about masqueraded packets, handed to the pod */
	XMASQ_COUNTER_ICMP_ERROR_IGNORED, /* ... dropped: no fast flow has sent that packet */
	XMASQ_COUNTER_EVENT_LOST,         /* the ring buffer was full */
	XMASQ_COUNTER_COUNT,              /* not a counter: the number of them */
};

/* Rare things the sidecar wants to hear of: records of `events`. */
enum xmasq_event_type {
	XMASQ_EVENT_WANT_APPROVAL = 1, /* a flow that only an approval can admit */
	XMASQ_EVENT_ADMITTED = 2,
	XMASQ_EVENT_DEMOTED = 3,
	XMASQ_EVENT_RESET = 4, /* RST of an approved flow, or a SYN after it: its conntrack entry must go */
	XMASQ_EVENT_BLACK_HOLE = 5,
	XMASQ_EVENT_REJECTED = 6,       /* the peer does not know our key */
	XMASQ_EVENT_UNKNOWN_PASSED = 7, /* a node's own packet looked masqueraded */
	XMASQ_EVENT_OWN_LOST = 8,       /* another program broke our packets on the way to the uplink */
	XMASQ_EVENT_PATH_CHANGED = 9,   /* a path to the peer began (reason 0) or ceased to carry masqueraded packets */
};

struct xmasq_event {
	__u64 time;
	__u32 type;   /* enum xmasq_event_type */
	__u32 reason; /* enum xmasq_reason */
	struct xmasq_flow_key flow;
	__u32 peer; /* peer id, or 0 */
};

/*
 * Control message between two data planes, in a UDP datagram to the tunnel port: the first byte makes it invalid for VXLAN
 * (no I flag, RFC 7348) and for Geneve (version 3, RFC 8926), so that a node without hooks drops it.
 */
#define XMASQ_CTL_TAG 0xc1

enum xmasq_ctl_type {
	XMASQ_CTL_REJECT = 1, /* your key is unknown here */
	XMASQ_CTL_ACK = 2,    /* your packets arrive here */
	XMASQ_CTL_PROBED = 3, /* your probe has arrived */
};

/* Key of masqueraded packets that are probes, and never given to a slot: answered by XMASQ_CTL_PROBED, delivered to nobody. */
#define XMASQ_PROBE_KEY 0xff

struct xmasq_ctl {
	__u8 tag;     /* XMASQ_CTL_TAG */
	__u8 version; /* XMASQ_PROTOCOL_VERSION */
	__u8 type;    /* enum xmasq_ctl_type */
	__u8 proto;   /* of the flow, as the receiver of this message sent it */
	__be16 sport;
	__be16 dport;
	__u8 scratch[4]; /* a pending TCP checksum of the packet this one was made from lands here */
	__u8 key;        /* of the packet that this is about, and */
	__u8 count;      /* the count in its ID, which is a probe's number */
	__u8 pad[6];
};
