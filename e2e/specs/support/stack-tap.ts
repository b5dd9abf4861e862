/** Counts what a network stack takes in: behind the tc programs, before anything else (an nftables table of its own). */
import { LabError } from '../../lab/lab.ts';
import type { Place } from '../../lab/lab.ts';

/** Counters by name. */
export interface StackTap {
  /** Packets (GRO aggregates count once) since the tap was set. */
  counts(): Promise<Record<string, number>>;
  remove(): Promise<void>;
}

let serial = 0;

/** Some names are nftables keywords. */
const PREFIX = 'tap_';

/** @param matches nftables match expression by counter name, e.g. `{ah: 'ip protocol 51'}` */
export async function tapStack(place: Place, matches: Readonly<Record<string, string>>): Promise<StackTap> {
  serial += 1;
  const table = `ip tap${serial}`;
  const ruleset = `
table ${table} {
  ${Object.keys(matches)
    .map((name) => `counter ${PREFIX}${name} { }`)
    .join('\n  ')}
  chain taken {
    type filter hook prerouting priority -500; policy accept;
    ${Object.entries(matches)
      .map(([name, match]) => `${match} counter name "${PREFIX}${name}"`)
      .join('\n    ')}
  }
}
`;
  await place.exec(['nft', '-f', '-'], { input: ruleset });
  return {
    async counts() {
      const { stdout } = await place.exec(['nft', '-j', 'list', 'counters', 'table', ...table.split(' ')]);
      const { nftables } = JSON.parse(stdout) as { nftables: { counter?: { name: string; packets: number } }[] };
      const found = Object.fromEntries(
        nftables.flatMap(({ counter: c }) => (c === undefined ? [] : [[c.name.slice(PREFIX.length), c.packets]])),
      );
      if (Object.keys(matches).some((name) => found[name] === undefined)) {
        throw new LabError(`${place.name}: nft lists no counter of ${table}: ${stdout}`);
      }
      return found;
    },
    async remove() {
      await place.exec(['nft', 'delete', 'table', ...table.split(' ')]);
    },
  };
}

/** Runs `use` with a tap; the counts after it. */
export async function tapped(
  place: Place,
  matches: Readonly<Record<string, string>>,
  use: () => Promise<unknown>,
): Promise<Record<string, number>> {
  const tap = await tapStack(place, matches);
  try {
    await use();
    return await tap.counts();
  } finally {
    await tap.remove();
  }
}
