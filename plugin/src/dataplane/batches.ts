import { setImmediate as nextTurn } from 'node:timers/promises';

/** Entries handled before everything else in the process gets its turn: about 2 ms. */
const BATCH = 512;

/** The items of a large table, with a turn of the event loop after each batch. */
export async function* inBatches<T>(items: Iterable<T>, size = BATCH): AsyncGenerator<T, void, undefined> {
  let count = 0;
  for (const item of items) {
    yield item;
    if (++count % size === 0) await nextTurn();
  }
}
