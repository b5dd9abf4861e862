/** What a measurement began is removed, whatever else happens. */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { Removal } from '../../../../e2e/bench/labs.ts';

function add(removal: Removal, name: string, undone: string[], begin: () => Promise<string>): Promise<string> {
  return removal.add(begin, (begun) => {
    undone.push(begun);
    return name === 'bad' ? Promise.reject(new Error('cannot remove')) : Promise.resolve();
  });
}

test('the last is removed first, also what is still being begun and behind what cannot be removed', async () => {
  const removal = new Removal();
  const undone: string[] = [];
  const directory = await removal.directory('xmasq-test-');
  writeFileSync(join(directory, 'file'), '');
  await add(removal, 'first', undone, () => Promise.resolve('first'));
  await add(removal, 'bad', undone, () => Promise.resolve('bad'));
  await expect(add(removal, 'failed', undone, () => Promise.reject(new Error('did not begin')))).rejects.toThrow();
  let begun: (value: string) => void = () => undefined;
  void add(removal, 'late', undone, () => new Promise((resolve) => (begun = resolve)));
  const running = removal.run();
  begun('late');
  await expect(running).rejects.toThrow('cannot remove');
  await expect(removal.run()).rejects.toThrow('cannot remove');
  expect(undone).toEqual(['late', 'bad', 'first']);
  expect(existsSync(directory)).toBe(false);
});

test('nothing begins once the removal has', async () => {
  const removal = new Removal();
  await removal.run();
  let begins = 0;
  const begin = (): Promise<string> => Promise.resolve(`${(begins += 1)}`);
  await expect(add(removal, 'too late', [], begin)).rejects.toThrow('being removed');
  expect(begins).toBe(0);
});
