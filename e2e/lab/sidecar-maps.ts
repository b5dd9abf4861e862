/** The pinned maps of one node's data plane, for tests that look behind the sidecar or take its state away. */
import { PinLayout } from '../../plugin/src/dataplane/pins.ts';
import { openTables } from '../../plugin/src/dataplane/tables.ts';
import type { KernelTables } from '../../plugin/src/dataplane/tables.ts';
import type { Flow, FlowKey, Slot, SlotKey } from '../../plugin/src/gen/layouts.ts';

/** Maps as the programs see them. Addresses are host-order numbers. Opened at each call: a restart may replace them. */
export class SidecarMaps {
  readonly #pins: PinLayout;

  /** @param pinDir the node's pin directory */
  constructor(pinDir: string) {
    this.#pins = new PinLayout(pinDir);
  }

  flows(): [FlowKey, Flow][] {
    return this.use((tables) => [...tables.flows.entries()]);
  }

  slots(): [SlotKey, Slot][] {
    return this.use((tables) => [...tables.slots.entries()]);
  }

  /** Deletes an entry of `flows` and nothing else; false if there was none. */
  deleteFlow(key: FlowKey): boolean {
    return this.use((tables) => tables.flows.delete(key));
  }

  /** Loss of state: deletes all flows and slots, tombstones too. Returns how many there were. */
  wipe(): { readonly flows: number; readonly slots: number } {
    return this.use((tables) => {
      const count = { flows: 0, slots: 0 };
      for (const [key] of [...tables.flows.entries()]) count.flows += tables.flows.delete(key) ? 1 : 0;
      for (const [key] of [...tables.slots.entries()]) count.slots += tables.slots.delete(key) ? 1 : 0;
      return count;
    });
  }

  /** Any other access. */
  use<T>(access: (tables: KernelTables) => T): T {
    const tables = openTables((map) => ({ path: this.#pins.map(map) }));
    try {
      return access(tables);
    } finally {
      tables.close();
    }
  }
}
