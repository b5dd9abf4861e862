import { describe, expect, test } from '@jest/globals';
import { MONITORED } from '../../../src/ovsdb/bridge.ts';
import { ProtocolError } from '../../../src/ovsdb/errors.ts';
import { mapOf, numberOf, readTypes, Replica, textOf, atomsOf, type Row } from '../../../src/ovsdb/replica.ts';
import { map, refs, SCHEMA } from './scripted-server.ts';

const types = readTypes(SCHEMA, MONITORED);

function row(replica: Replica, table: string, uuid: string): Row {
  const found = replica.table(table).get(uuid);
  if (found === undefined) throw new Error(`no row ${uuid}`);
  return found;
}

describe('a copy', () => {
  test('follows differences: sets by what is in one of both, maps by pair, other columns by the new value', () => {
    const replica = new Replica(types);
    replica.update2({
      Bridge: { b: { initial: { name: 'br-int', ports: refs('p1', 'p2'), external_ids: map({ a: '1', b: '2' }) } } },
      Port: { p1: { initial: { name: 'web', tag: 7 } } },
    });
    const before = row(replica, 'Bridge', 'b');
    replica.update2({
      Bridge: {
        b: {
          modify: {
            ports: refs('p2', 'p3'),
            // a: another value; b: the same value, which means that it is gone; c: new
            external_ids: map({ a: '5', b: '2', c: '3' }),
          },
        },
      },
      Port: { p1: { modify: { tag: ['set', []] } }, p3: { insert: { name: 'db' } } },
    });
    const bridge = row(replica, 'Bridge', 'b');
    expect(textOf(bridge, 'name')).toBe('br-int');
    expect(atomsOf(bridge, 'ports')).toEqual(['p1', 'p3']);
    expect(Object.fromEntries(mapOf(bridge, 'external_ids'))).toEqual({ a: '5', c: '3' });
    expect(numberOf(row(replica, 'Port', 'p1'), 'tag')).toBeUndefined();
    expect([...replica.table('Port').keys()]).toEqual(['p1', 'p3']);
    // The old row was not changed in place.
    expect(atomsOf(before, 'ports')).toEqual(['p1', 'p2']);
    expect(Object.fromEntries(mapOf(before, 'external_ids'))).toEqual({ a: '1', b: '2' });

    // A single element comes without the word "set".
    replica.update2({ Bridge: { b: { modify: { ports: ['uuid', 'p1'] } } }, Port: { p1: { delete: null } } });
    expect(atomsOf(row(replica, 'Bridge', 'b'), 'ports')).toEqual(['p3']);
    expect([...replica.table('Port').keys()]).toEqual(['p3']);
  });

  test('follows whole rows, as servers without monitor_cond tell them', () => {
    const replica = new Replica(types);
    replica.update({ Port: { p1: { new: { name: 'web', tag: 7, external_ids: map({ a: '1' }) } } } });
    replica.update({
      Port: { p1: { old: { tag: 7 }, new: { name: 'web', tag: ['set', []], external_ids: map({}) } } },
    });
    expect(numberOf(row(replica, 'Port', 'p1'), 'tag')).toBeUndefined();
    expect(mapOf(row(replica, 'Port', 'p1'), 'external_ids').size).toBe(0);
    replica.update({ Port: { p1: { old: { name: 'web' } } } });
    expect(replica.table('Port').size).toBe(0);
  });

  test('leaves out columns that an older schema lacks, but no table', () => {
    const { ofport, ...columns } = SCHEMA.tables.Interface.columns;
    expect(ofport).toBeDefined();
    const tables = { ...SCHEMA.tables, Interface: { columns } };
    expect([...(readTypes({ tables }, MONITORED).get('Interface')?.keys() ?? [])]).not.toContain('ofport');
    const { Port, ...rest } = SCHEMA.tables;
    expect(Port).toBeDefined();
    expect(() => readTypes({ tables: rest }, MONITORED)).toThrow('no table Port');
  });

  test.each([
    ['a change of an unknown row', { Port: { x: { modify: { name: 'a' } } } }],
    ['an unknown table', { Queue: { x: { insert: {} } } }],
    ['an unknown column', { Port: { x: { insert: { bond_mode: 'x' } } } }],
    ['an empty update', { Port: { x: {} } }],
    ['no rows', { Port: [] }],
    ['a row that is none', { Port: { x: { insert: 'row' } } }],
    ['a map that is none', { Port: { x: { insert: { external_ids: 'a' } } } }],
    ['a pair that is none', { Port: { x: { insert: { external_ids: ['map', [['a']]] } } } }],
    ['a set without elements', { Bridge: { x: { insert: { ports: ['set'] } } } }],
    ['a value that is none', { Port: { x: { insert: { name: { a: 1 } } } } }],
    ['nothing', null],
  ])('refuses %s', (_what, updates) => {
    expect(() => {
      new Replica(types).update2(updates);
    }).toThrow(ProtocolError);
  });
});
