import { constants } from 'node:os';
import { describe, expect, test } from '@jest/globals';
import { NetlinkError } from '../../../src/netlink/errors.ts';
import { MessageWriter } from '../../../src/netlink/message.ts';
import type { NetlinkMessage } from '../../../src/netlink/message.ts';
import { dumpTable, streamTable } from '../../../src/netlink/socket.ts';
import type { DumpPlan } from '../../../src/netlink/socket.ts';
import { only } from './vectors.ts';

function message(type: number): NetlinkMessage {
  return only(new MessageWriter(type, 0).finish(1));
}

/** A table of types 1 to 3 in two parts, whose first `interruptions` dumps end with `errno`. */
function plan(interruptions: number, errno: number = constants.errno.EINTR): DumpPlan<number> & { opened: number[] } {
  const opened: number[] = [];
  return {
    opened,
    protocol: 0,
    what: 'test dump',
    request: () => new MessageWriter(1, 0),
    decode: ({ type }) => (type === 2 ? undefined : type),
    open: () => {
      const attempt = opened.push(0);
      return {
        *dump(what) {
          yield [message(1), message(2)];
          yield [message(3)];
          if (attempt <= interruptions) throw new NetlinkError(errno, what);
        },
        close: () => void (opened[attempt - 1] = (opened[attempt - 1] ?? 0) + 1),
      };
    },
  };
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

describe('dumpTable', () => {
  test('repeats an interrupted dump and returns only the undisturbed one', () => {
    const dump = plan(4);
    expect(dumpTable(dump)).toEqual([1, 3]);
    expect(dump.opened).toEqual([1, 1, 1, 1, 1]);
  });

  test('gives up after five attempts', () => {
    const dump = plan(5);
    expect(() => dumpTable(dump)).toThrow('test dump: EINTR');
    expect(dump.opened).toEqual([1, 1, 1, 1, 1]);
  });

  test('repeats for no other reason', () => {
    const dump = plan(1, constants.errno.EPERM);
    expect(() => dumpTable(dump)).toThrow('test dump: EPERM');
    expect(dump.opened).toEqual([1]);
  });
});

describe('streamTable', () => {
  test('hands items over again when the dump was interrupted', async () => {
    const dump = plan(1);
    expect(await collect(streamTable(dump))).toEqual([1, 3, 1, 3]);
    expect(dump.opened).toEqual([1, 1]);
  });

  test('gives up after five attempts', async () => {
    const dump = plan(5);
    await expect(collect(streamTable(dump))).rejects.toThrow('test dump: EINTR');
    expect(dump.opened).toEqual([1, 1, 1, 1, 1]);
  });

  test('closes the socket when the loop is left early, or its body throws', async () => {
    const left = plan(0);
    for await (const item of streamTable(left)) if (item === 1) break;
    expect(left.opened).toEqual([1]);
    const thrown = plan(0);
    await expect(
      (async () => {
        for await (const item of streamTable(thrown)) throw new Error(`item ${item}`);
      })(),
    ).rejects.toThrow('item 1');
    expect(thrown.opened).toEqual([1]);
  });

  test('gives other work its turn between parts', async () => {
    let immediate = false;
    setImmediate(() => (immediate = true));
    await collect(streamTable(plan(0)));
    expect(immediate).toBe(true);
  });
});
