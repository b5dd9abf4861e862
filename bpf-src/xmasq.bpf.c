// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The data plane. Path of a packet: pod_egress (sender's node) -> uplink_egress -> underlay -> uplink_ingress (receiver's
 * node); packets of the slow path meet pod_egress and pod_ingress. docs/packet-walk.md follows one through the maps.
 */
#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#ifdef XMASQ_NEXT_PROGRAMS
/* Other programs that do the same, for tests of upgrades: an instruction more wherever the time is asked for. */
#define bpf_ktime_get_coarse_ns()                        \
	({                                               \
		__u64 _time = bpf_ktime_get_coarse_ns(); \
		asm volatile("%0 += 0" : "+r"(_time));   \
		_time;                                   \
	})
#endif

#include "maps.h"
#include "packet.h"
#include "conntrack.h"
#include "admission.h"
#include "flow.h"
#include "pod_egress.h"
#include "pod_ingress.h"
#include "uplink_ingress.h"
#include "uplink_egress.h"
#include "uplink_xdp.h"

_Static_assert(offsetof(struct xmasq_config, layout_version) == 0 && offsetof(struct xmasq_config, flags) == 4 &&
		       XMASQ_CFG_ADMIT == 1 && XMASQ_CFG_SEND == 2,
	       "what every version's sidecar finds in config");

char LICENSE[] SEC("license")
= "Dual BSD/GPL";
