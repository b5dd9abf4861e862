/** What joins the nodes: nothing but a veth pair, a switch namespace, or a router namespace with fault injection. */
import { LabError } from '../lab.ts';
import type { Firewall, Node, OffloadFlags, Proc, Underlay } from '../lab.ts';
import type { NativePlace } from './place.ts';
import { batch, sysctls, underlayPort } from './setup.ts';

const TABLE = 'inet xmasqunderlay';
const DETOUR_DEVICE = 'detour0';
const DETOUR_ROUTES = 100;
const DETOUR_MARK = 1;

/** What of a lab its underlay needs to know. */
export interface UnderlayDetails {
  /** Names of the devices in the underlay's namespace, one per node. */
  readonly ports: readonly string[];
  readonly delayTool: () => string;
  /** The nodes have IPv6 addresses. */
  readonly ipv6: boolean;
  /** UDP port of the slow path's tunnel. */
  readonly tunnelPort: number;
}

/** Fault injection in the router namespace; without a router each method but `clear` throws. */
export class NativeUnderlay implements Underlay {
  readonly routed: boolean;
  readonly place: NativePlace | undefined;
  readonly #details: UnderlayDetails;
  #rules: readonly string[] = [];
  #firewalls: readonly Firewall[] = [];
  #lowered = false;
  #delayed = false;
  #loss = 0;
  #reorder = 0;
  #detour: Proc | undefined;

  constructor(place: NativePlace | undefined, routed: boolean, details: UnderlayDetails) {
    this.place = place;
    this.routed = routed;
    this.#details = details;
  }

  /** Names of the devices in `place`, one per node. */
  get ports(): readonly string[] {
    return this.#details.ports;
  }

  /** Switches offloads of the underlay's own devices. */
  async offload(flags: OffloadFlags): Promise<void> {
    const place = this.place;
    if (place !== undefined) await Promise.all(this.ports.map((port) => place.offload(flags, port)));
  }

  async setLoss(percent: number): Promise<void> {
    this.#router();
    this.#loss = checkPercent(percent);
    await this.#apply();
  }

  async setReorder(percent: number, delayMs: number): Promise<void> {
    const router = this.#router();
    this.#reorder = checkPercent(percent);
    await this.#detour?.stop();
    this.#detour = undefined;
    if (this.#reorder > 0) {
      this.#detour = await router.spawn([this.#details.delayTool(), '--tun', DETOUR_DEVICE, '--ms', String(delayMs)]);
      await this.#detour.waitFor(/ready/);
      await router.sh(
        `ip link set ${DETOUR_DEVICE} up; echo 0 >/proc/sys/net/ipv4/conf/${DETOUR_DEVICE}/rp_filter\n` +
          ['-4', ...(this.#details.ipv6 ? ['-6'] : [])].map(detourRoute).join(''),
      );
    }
    await this.#apply();
  }

  async setDelay(delayMs: number, jitterMs: number): Promise<void> {
    const router = this.#router();
    if (delayMs === 0 && !this.#delayed) return;
    this.#delayed = delayMs > 0;
    for (const port of this.ports) {
      // Jitter alone puts packets in another order; the limit is of packets that wait.
      const netem = ['netem', 'delay', `${delayMs}ms`, `${jitterMs}ms`, 'limit', '100000'];
      const argv = this.#delayed ? ['replace', 'dev', port, 'root', ...netem] : ['del', 'dev', port, 'root'];
      await router.exec(['tc', 'qdisc', ...argv]);
    }
  }

  async addRules(rules: readonly string[]): Promise<void> {
    this.#router();
    this.#rules = [...this.#rules, ...rules];
    await this.#apply();
  }

  async addFirewall(firewall: Firewall): Promise<void> {
    const router = this.#router();
    this.#firewalls = [...this.#firewalls, firewall];
    if (firewall.kind === 'stateful') {
      // What of a connection came before is not known; conntrack may be there already by another rule.
      await router.sh(setLooseTracking(false) + FORGET_CONNECTIONS);
    }
    await this.#apply();
  }

  async setMtu(mtu: number, towards?: Node): Promise<void> {
    const router = this.#router();
    const least = this.#details.ipv6 ? 1280 : 68;
    if (!Number.isInteger(mtu) || mtu < least) throw new LabError(`MTU ${mtu}: at least ${least} is needed`);
    this.#lowered = true;
    await this.#setRouteMtu(router, `mtu lock ${mtu}`, towards);
  }

  async #setRouteMtu(router: NativePlace, attribute: string, towards?: Node): Promise<void> {
    const device = towards === undefined ? '' : underlayPort(towards.index);
    // Of the routes, not of the devices: a veth device drops what it receives beyond its MTU, and nobody is told.
    for (const family of ['-4', ...(this.#details.ipv6 ? ['-6'] : [])]) {
      const { stdout } = await router.exec(['ip', family, 'route', 'show', ...(device === '' ? [] : ['dev', device])]);
      const routes = stdout
        .split('\n')
        .map((route) => route.trim().replace(/ mtu (lock )?\d+/, ''))
        .filter((route) => route !== '' && !route.startsWith('fe80:'));
      const changes = routes.map(
        (route) => `route change ${route}${device === '' ? '' : ` dev ${device}`} ${attribute}`,
      );
      await router.exec(['sh', '-e'], { input: batch('ip', changes) });
    }
  }

  async clear(): Promise<void> {
    if (!this.routed) return;
    if (this.#firewalls.some(({ kind }) => kind === 'stateful')) {
      await this.#router().sh(setLooseTracking(true));
    }
    if (this.#lowered) await this.#setRouteMtu(this.#router(), '');
    this.#lowered = false;
    this.#firewalls = [];
    this.#rules = [];
    this.#loss = 0;
    await this.setDelay(0, 0);
    await this.setReorder(0, 0);
  }

  #firewallRule({ kind, from }: Firewall): string {
    const source = from === undefined ? '' : `iifname "${underlayPort(from.index)}" `;
    if (kind === 'stateful') return `${source}ct state invalid counter drop`;
    const { tunnelPort } = this.#details;
    return `${source}meta l4proto != udp counter drop\n    ${source}udp dport != ${tunnelPort} counter drop`;
  }

  #router(): NativePlace {
    if (this.place === undefined || !this.routed) {
      throw new LabError('this lab has no router: bring it up with { router: true } to inject faults');
    }
    return this.place;
  }

  /* The whole table at once, atomically: no moment without the rules that stay. */
  async #apply(): Promise<void> {
    // What comes back from the detour is not sent there again.
    const detour =
      this.#reorder > 0
        ? `iifname != "${DETOUR_DEVICE}" numgen random mod 100 < ${this.#reorder} meta mark set ${DETOUR_MARK}`
        : '';
    const loss =
      this.#loss > 0 ? `iifname != "${DETOUR_DEVICE}" numgen random mod 100 < ${this.#loss} counter drop` : '';
    const ruleset = `
table ${TABLE}
delete table ${TABLE}
table ${TABLE} {
  chain prerouting {
    type filter hook prerouting priority mangle; policy accept;
    ${detour}
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    ${this.#rules.join('\n    ')}
    ${this.#firewalls.map((firewall) => this.#firewallRule(firewall)).join('\n    ')}
    ${loss}
  }
}
`;
    await this.#router().exec(['nft', '-f', '-'], { input: ruleset });
  }
}

/* Commands that send marked packets of a family through the detour. */
function detourRoute(family: string): string {
  return (
    `ip ${family} route replace default dev ${DETOUR_DEVICE} table ${DETOUR_ROUTES}\n` +
    `ip ${family} rule | grep -q 'lookup ${DETOUR_ROUTES}' || ` +
    `ip ${family} rule add fwmark ${DETOUR_MARK} lookup ${DETOUR_ROUTES}\n`
  );
}

/* Loose: TCP is tracked from any packet on. */
function setLooseTracking(loose: boolean): string {
  return sysctls({ 'net/netfilter/nf_conntrack_tcp_loose': loose ? 1 : 0 });
}

const FORGET_CONNECTIONS = 'conntrack -F 2>/dev/null\n';

function checkPercent(percent: number): number {
  if (!Number.isInteger(percent) || percent < 0 || percent > 100) {
    throw new LabError(`percentage ${percent}: a whole number from 0 to 100 is needed`);
  }
  return percent;
}
