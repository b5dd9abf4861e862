/**
 * Rules that stand for those of a Kubernetes node, as kube-proxy's iptables mode has them (pkg/proxy/iptables/proxier.go of
 * Kubernetes 1.31), in nft's language: what each packet of an established connection meets, and what a new one does. The
 * Services are as many as in a small cluster.
 */

const SERVICES = 50;

const service = (i: number): string => `ip daddr 10.97.${i >> 8}.${i & 255} tcp dport 80 jump svc${i}`;
const chain = (i: number): string =>
  `  chain svc${i} { ip saddr != 10.10.0.0/16 jump mark_masq; ip protocol tcp dnat to 10.10.${1 + (i & 1)}.${10 + (i % 200)}:8080; }`;
const each = (line: (i: number) => string, separator: string): string =>
  Array.from({ length: SERVICES }, (_, i) => line(i)).join(separator);

/** For `nft -f` in a node. */
export const KUBE_PROXY_RULES = `
table ip kubeproxy {
  chain mark_masq { meta mark set meta mark or 0x4000; }
${each(chain, '\n')}
  chain services {
    ${each(service, '\n    ')}
  }
  chain nat_prerouting { type nat hook prerouting priority dstnat; jump services; }
  chain nat_output { type nat hook output priority -100; jump services; }
  chain nat_postrouting {
    type nat hook postrouting priority srcnat;
    meta mark and 0x4000 != 0x4000 return
    masquerade
  }
  chain firewall {
    ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 ct state != established,related,new drop
    meta mark and 0x8000 == 0x8000 drop
  }
  chain forwarding {
    ct state invalid drop
    meta mark and 0x4000 == 0x4000 accept
    ct state established,related accept
  }
  chain new_services { counter; }
  chain filter_input { type filter hook input priority filter; ct state new jump new_services; jump firewall; }
  chain filter_forward {
    type filter hook forward priority filter
    jump forwarding
    ct state new jump new_services
  }
  chain filter_output { type filter hook output priority filter; ct state new jump new_services; jump firewall; }
}
`;
