import { beforeEach, describe, expect, test } from '@jest/globals';
import { ConfigMap } from '../../../src/dataplane/config-map.ts';
import { ConfigFlag, PeerFlag, Reason, type Path, type Peer } from '../../../src/dataplane/layout.ts';
import {
  modesOf,
  pathIndex,
  pathIndexes,
  pathsOf,
  podFamilies,
  UNHEARD,
  UNKNOWN_PATH,
} from '../../../src/dataplane/paths.ts';
import { setTransmitMode } from '../../../src/dataplane/transmit-mode.ts';
import { FakeClock, FakeTables, zeroPeer } from './fakes.ts';

const ID = 3;
const node = { addresses: ['172.30.0.2', 'fd30::2'], podCIDRs: ['10.10.2.0/24', 'fd10:2::/64'] };

let tables: FakeTables;
let clock: FakeClock;
let config: ConfigMap;

function peer(over: Partial<Peer> = {}): void {
  const flags = PeerFlag.PRESENT | PeerFlag.CAPABLE;
  tables.peers.set(ID, { ...zeroPeer, addr4: '172.30.0.2', addr6: 'fd30::2', flags, ...over });
}

function path(family: 4 | 6, pathClass: number, over: Partial<Path>): void {
  tables.paths.set(pathIndex(ID, family, pathClass), { ...UNKNOWN_PATH, ...over });
}

/** `family class mode reason` of each way. */
const ways = (): string[] =>
  modesOf(tables, config.get(), ID, node, clock.time).map(
    ({ family, pathClass, mode, reason }) => `${family} ${pathClass} ${mode} ${reason}`,
  );
const all = (mode: string, reason: number): string[] =>
  [4, 6].flatMap((family) => ['tcp', 'udp', 'other'].map((name) => `${family} ${name} ${mode} ${reason}`));

beforeEach(() => {
  tables = new FakeTables();
  clock = new FakeClock();
  config = new ConfigMap(tables.config, clock.now);
  config.update({ uplinkAddr4: '172.30.0.1', uplinkAddr6: 'fd30::1' });
  config.setFlags(ConfigFlag.SEND);
  setTransmitMode(config, 'auto');
  tables.peerState.set(ID, { ...UNHEARD, lastConfirmed: clock.time });
  peer();
});

test('elements of the map, as the programs count them', () => {
  expect(pathIndexes(1)).toEqual([6, 7, 8, 9, 10, 11]);
  expect(pathIndex(2, 6, 1)).toBe((2 * 2 + 1) * 3 + 1);
});

test.each([
  [['10.1.0.0/24'], [4]],
  [['fd00::/64'], [6]],
  [
    ['fd00::/64', '10.1.0.0/24'],
    [4, 6],
  ],
  [[], [4, 6]],
])('families of pods in %j', (podCIDRs, families) => expect(podFamilies({ ...node, podCIDRs })).toEqual(families));

describe('how packets go', () => {
  test('what is proved is masqueraded, by family and class', () => {
    path(4, 0, { provenAt: clock.time, masquerade: 1 });
    path(6, 2, { provenAt: clock.time, masquerade: 1 });
    const encap = Reason.UNPROVEN;
    expect(ways()).toEqual([
      '4 tcp masquerade 0',
      `4 udp encap ${encap}`,
      `4 other encap ${encap}`,
      `6 tcp encap ${encap}`,
      `6 udp encap ${encap}`,
      '6 other masquerade 0',
    ]);
  });

  test.each([
    ['not for longer than the proof holds', { provenAt: -61n, masquerade: 1 }, Reason.UNPROVEN],
    ['not yet, as the last change is too near', { provenAt: 0n, masquerade: 0 }, Reason.UNPROVEN],
    ['not while packets are lost', { provenAt: -3n, holeAt: -2n, masquerade: 0 }, Reason.BLACK_HOLE],
    ['again once they arrive', { provenAt: -1n, holeAt: -9n, masquerade: 1 }, Reason.NONE],
  ])(
    '%s',
    (_what, { provenAt, holeAt, masquerade }: { provenAt: bigint; holeAt?: bigint; masquerade: number }, reason) => {
      const ago = (seconds: bigint): bigint => clock.time + seconds * 1_000_000_000n;
      path(4, 0, { provenAt: ago(provenAt), holeAt: holeAt === undefined ? 0n : ago(holeAt), masquerade });
      expect(ways()[0]).toBe(`4 tcp ${reason === Reason.NONE ? 'masquerade' : 'encap'} ${reason}`);
    },
  );

  test('one mode only', () => {
    setTransmitMode(config, 'masquerade');
    expect(ways()).toEqual(all('masquerade', Reason.NONE));
    setTransmitMode(config, 'encap');
    expect(ways()).toEqual(all('encap', Reason.MODE));
  });

  test.each([
    ['a peer without XMasq', { flags: PeerFlag.PRESENT }, 'encap', Reason.PEER_NOT_CAPABLE],
    [
      'a peer that Antrea routes to',
      { flags: PeerFlag.PRESENT | PeerFlag.DIRECT4 | PeerFlag.DIRECT6 },
      'direct',
      Reason.NONE,
    ],
  ])('%s', (_what, over, mode, reason) => {
    peer(over);
    expect(ways()).toEqual(all(mode, reason));
  });

  test('a silent peer', () => {
    clock.seconds(5);
    expect(ways()).toEqual(all('encap', Reason.PEER_SILENT));
    setTransmitMode(config, 'masquerade');
    expect(ways()).toEqual(all('slow', Reason.PEER_SILENT));
  });

  test('without an address of the family packets cannot be masqueraded', () => {
    peer({ addr6: '' });
    path(4, 0, { provenAt: clock.time, masquerade: 1 });
    expect(ways()).toEqual(expect.arrayContaining(['4 tcp masquerade 0', `6 tcp encap ${Reason.MODE}`]));
  });

  test('not at all while the node is excluded or drained', () => {
    config.setFlags(0, ConfigFlag.SEND);
    expect(ways()).toEqual(all('slow', Reason.DRAINING));
    config.update({ excludedRemote: Reason.ENCRYPTION });
    expect(ways()).toEqual(all('slow', Reason.ENCRYPTION));
  });
});

test('what was counted', () => {
  path(6, 1, {
    ...{ provenAt: clock.time - 2_000_000_000n, changedAt: clock.time - 9_000_000_000n },
    ...{ changes: 3, probes: 8n, answers: 5n, masquerade: 1 },
  });
  expect(pathsOf(tables, config.get(), ID, node, clock.time).slice(3, 5)).toEqual([
    { family: 6, pathClass: 'tcp', mode: 'encap', reason: Reason.UNPROVEN, changes: 0, probes: 0n, answers: 0n },
    {
      ...{ family: 6, pathClass: 'udp', mode: 'masquerade', reason: 0 },
      ...{ changes: 3, probes: 8n, answers: 5n, provenMs: 2000, changedMs: 9000 },
    },
  ]);
});
