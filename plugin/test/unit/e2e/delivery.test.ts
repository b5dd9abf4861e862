/** The comparison of what was sent with what arrived, on which the specs about fidelity rest. */
import { describe, expect, test } from '@jest/globals';
import { decodeFrame } from '../../../../e2e/lab/packet.ts';
import type { Pod } from '../../../../e2e/lab/lab.ts';
import type { CaptureResult } from '../../../../e2e/lab/pcap.ts';
import { delivery } from '../../../../e2e/specs/support/delivery.ts';
import type { Delivery } from '../../../../e2e/specs/support/delivery.ts';
import { udpFrame } from '../../../../e2e/specs/support/frames.ts';

const MACS = { srcMac: '02:00:00:00:00:01', dstMac: '02:00:00:00:00:02' };
const ADDRESSES = { src: '10.10.0.2', dst: '10.10.1.2', sport: 9000, dport: 9001 };

interface Sent {
  readonly text?: string;
  readonly tos?: number;
  readonly df?: boolean;
  readonly ttl?: number;
}

function capture(packets: readonly Sent[]): CaptureResult {
  const frames = packets.map(({ text = 'same', ...header }) =>
    udpFrame({ ...MACS, ...ADDRESSES, ...header, payload: Buffer.from(text) }),
  );
  return {
    dropped: 0,
    packets: frames.map((bytes) => ({ ...decodeFrame(bytes), bytes, time: 0, wireLength: bytes.length })),
  };
}

/** What became of the first packets if the second arrived. */
function compare(sent: readonly Sent[], received: readonly Sent[]): Delivery {
  const [from, to] = [ADDRESSES.src, ADDRESSES.dst].map((address) => ({ name: address, address }) as unknown as Pod);
  if (from === undefined || to === undefined) throw new Error('two pods');
  return delivery(capture(sent), capture(received), { from, to, proto: 'udp', port: ADDRESSES.dport });
}

describe('delivery', () => {
  test('packets with the same payload may overtake each other', () => {
    const sent = [{ tos: 1 }, { df: false }, { tos: 2, df: false }, {}];
    expect(compare(sent, sent.toReversed())).toMatchObject({ received: 4, unmatched: 0, lost: 0, changes: [''] });
  });

  test.each([
    ['its TOS', { tos: 2 }, 'TOS 0x01 > 0x02'],
    ['DF', { tos: 1, df: false }, 'DF true > false'],
    ['its TTL', { tos: 1, ttl: 63 }, 'TTL -1'],
  ])('of packets with the same payload one has changed %s', (_what, changed, change) => {
    for (const received of [
      [changed, { tos: 2, df: true }, {}],
      [{}, { tos: 2 }, changed],
    ]) {
      const { changes, lost } = compare([{ tos: 1 }, {}, { tos: 2 }], received);
      expect({ lost, changes: changes.filter((each) => each !== '') }).toEqual({ lost: 0, changes: [change] });
    }
  });

  test('one is lost, one comes twice, and one has another payload', () => {
    expect(compare([{}, {}], [{}])).toMatchObject({ received: 1, unmatched: 0, lost: 1 });
    expect(compare([{}], [{}, {}])).toMatchObject({ received: 2, unmatched: 1, lost: 0 });
    expect(compare([{}], [{ text: 'others' }])).toMatchObject({ received: 1, unmatched: 1, lost: 1 });
  });
});
