/** What joins the nodes: nothing but a veth pair, a switch namespace, or a router namespace with fault injection. */
import { LabError } from '../lab.ts';
import type { OffloadFlags, Proc, Underlay } from '../lab.ts';
import type { NativePlace } from './place.ts';

const TABLE = 'inet xmasqunderlay';
const DETOUR_DEVICE = 'detour0';
const DETOUR_ROUTES = 100;
const DETOUR_MARK = 1;

/** Fault injection in the router namespace; without a router each method but `clear` throws. */
export class NativeUnderlay implements Underlay {
  readonly routed: boolean;
  readonly place: NativePlace | undefined;
  readonly #ports: readonly string[];
  readonly #delayTool: () => string;
  #rules: readonly string[] = [];
  #loss = 0;
  #reorder = 0;
  #detour: Proc | undefined;

  constructor(
    place: NativePlace | undefined,
    routed: boolean,
    details: { readonly ports: readonly string[]; readonly delayTool: () => string },
  ) {
    this.place = place;
    this.routed = routed;
    this.#ports = details.ports;
    this.#delayTool = details.delayTool;
  }

  /** Switches offloads of the underlay's own devices. */
  async offload(flags: OffloadFlags): Promise<void> {
    const place = this.place;
    if (place !== undefined) await Promise.all(this.#ports.map((port) => place.offload(flags, port)));
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
      this.#detour = await router.spawn([this.#delayTool(), '--tun', DETOUR_DEVICE, '--ms', String(delayMs)]);
      await this.#detour.waitFor(/ready/);
      await router.sh(
        `ip link set ${DETOUR_DEVICE} up; echo 0 >/proc/sys/net/ipv4/conf/${DETOUR_DEVICE}/rp_filter; ` +
          `ip route replace default dev ${DETOUR_DEVICE} table ${DETOUR_ROUTES}; ` +
          `ip rule | grep -q 'lookup ${DETOUR_ROUTES}' || ip rule add fwmark ${DETOUR_MARK} lookup ${DETOUR_ROUTES}`,
      );
    }
    await this.#apply();
  }

  async addRules(rules: readonly string[]): Promise<void> {
    this.#router();
    this.#rules = [...this.#rules, ...rules];
    await this.#apply();
  }

  async clear(): Promise<void> {
    if (!this.routed) return;
    this.#rules = [];
    this.#loss = 0;
    await this.setReorder(0, 0);
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
    ${loss}
  }
}
`;
    await this.#router().exec(['nft', '-f', '-'], { input: ruleset });
  }
}

function checkPercent(percent: number): number {
  if (!Number.isInteger(percent) || percent < 0 || percent > 100) {
    throw new LabError(`percentage ${percent}: a whole number from 0 to 100 is needed`);
  }
  return percent;
}
