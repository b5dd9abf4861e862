import { describe, expect, test } from '@jest/globals';
import { Btf, type BtfType } from '../../../../scripts/gen-layouts/btf.ts';
import { emitReasonsProto } from '../../../../scripts/gen-layouts/emit-proto.ts';
import { emitTypeScript } from '../../../../scripts/gen-layouts/emit-ts.ts';
import { mergeModels, readModel, type Model } from '../../../../scripts/gen-layouts/model.ts';
import { camelCase, enumerators, pascalCase } from '../../../../scripts/gen-layouts/names.ts';

const EMPTY: Model = { structs: [], enums: [], maps: [] };
const U32: BtfType = { id: 1, kind: 'INT', name: 'unsigned int', size: 4, encoding: '(none)' };

function struct(
  id: number,
  name: string,
  members: [name: string, type: number, bits: number, bitfield?: number][],
): BtfType {
  return {
    id,
    kind: 'STRUCT',
    name,
    size: 16,
    members: members.map(([member, type_id, bits_offset, bitfield_size]) => ({
      name: member,
      type_id,
      bits_offset,
      ...(bitfield_size === undefined ? {} : { bitfield_size }),
    })),
  };
}

function read(types: BtfType[]): { model: Model; skipped: string[] } {
  const skipped: string[] = [];
  const model = readModel(new Btf(types), [/^xmasq_/], (message) => skipped.push(message));
  return { model, skipped };
}

describe('names', () => {
  test('follow TypeScript customs', () => {
    expect(pascalCase('xmasq_flow_key')).toBe('FlowKey');
    expect(camelCase('src_ip')).toBe('srcIp');
  });

  test.each([
    ['its own name', 'xmasq_reason', ['XMASQ_REASON_NONE', 'XMASQ_REASON_NO_PEER'], ['NONE', 'NO_PEER']],
    ['what is shared', 'xmasq_config_flag', ['XMASQ_CFG_ADMIT', 'XMASQ_CFG_SEND'], ['ADMIT', 'SEND']],
    ['whole words only', 'e', ['FLOW_ABLE', 'FLOW_ABOUT'], ['ABLE', 'ABOUT']],
    ['nothing in common', 'e', ['A', 'B_A'], ['A', 'B_A']],
    ['leading underscores', 'xmasq_x', ['XMASQ_X_A', '__XMASQ_X_MAX'], ['A', 'MAX']],
  ])('lose the prefix of an enum: %s', (_, name, values, expected) => {
    const short = enumerators({ name, values: values.map((value, i) => ({ name: value, value: i })) });
    expect(short.map((value) => value.name)).toEqual(expected);
  });

  test('the mark of the end is one only at the end', () => {
    const values = ['E_COUNT', 'E_A', 'E_MAX'].map((name, value) => ({ name, value }));
    expect(enumerators({ name: 'e', values }).map(({ sentinel }) => sentinel)).toEqual([false, false, true]);
  });
});

describe('reading BTF', () => {
  test('leaves padding out and flattens anonymous members', () => {
    const { model } = read([
      U32,
      struct(2, '(anon)', [
        ['a', 1, 0],
        ['b', 1, 32],
      ]),
      struct(3, 'xmasq_s', [
        ['x', 1, 0],
        ['_pad1', 1, 32],
        ['(anon)', 2, 64],
      ]),
    ]);
    expect(model.structs[0]?.fields.map(({ name, offset }) => [name, offset])).toEqual([
      ['x', 0],
      ['a', 8],
      ['b', 12],
    ]);
  });

  test('skips what nobody stores, with a reason', () => {
    const { model, skipped } = read([
      U32,
      { id: 2, kind: 'PTR', name: '(anon)', type_id: 1 },
      struct(3, 'xmasq_context', [['data', 2, 0]]),
      struct(4, 'xmasq_bits', [['flag', 1, 0, 3]]),
    ]);
    expect(model.structs).toEqual([]);
    expect(skipped).toEqual([
      'struct xmasq_context left out: xmasq_context.data: PTR is nothing user space can hold',
      'struct xmasq_bits left out: xmasq_bits.flag: bit fields are not supported',
    ]);
  });
});

describe('joining objects', () => {
  const withField = (name: string, offset: number): Model => ({
    ...EMPTY,
    structs: [{ name, size: 8, fields: [{ name: 'f', offset, type: { kind: 'bytes', length: 4 } }] }],
  });

  test('takes what is equal once and refuses what differs', () => {
    expect(mergeModels([withField('a', 0), withField('a', 0), withField('b', 0)]).structs).toHaveLength(2);
    expect(() => mergeModels([withField('a', 0), withField('a', 4)])).toThrow(/struct a differs/);
  });

  test('puts contained structs first', () => {
    const outer: Model = {
      ...EMPTY,
      structs: [{ name: 'a', size: 8, fields: [{ name: 'f', offset: 0, type: { kind: 'struct', name: 'b' } }] }],
    };
    expect(mergeModels([outer, withField('b', 0)]).structs.map(({ name }) => name)).toEqual(['b', 'a']);
  });
});

describe('emitting', () => {
  test('refuses names that collide in TypeScript', () => {
    const fields = ['a_b', 'aB'].map((name, i) => ({
      name,
      offset: i,
      type: { kind: 'bytes', length: 1 } as const,
    }));
    expect(() => emitTypeScript({ ...EMPTY, structs: [{ name: 's', size: 2, fields }] })).toThrow(
      /become aB in struct s/,
    );
  });

  test('changes the layout hash with the layout only', () => {
    const hash = (model: Model): string | undefined => /LAYOUT_HASH = '(\w+)'/.exec(emitTypeScript(model))?.[1];
    const map = { name: 'm', type: 1, maxEntries: 1, key: undefined, value: undefined };
    expect(hash(EMPTY)).toBe(hash({ ...EMPTY }));
    expect(hash(EMPTY)).not.toBe(hash({ ...EMPTY, maps: [map] }));
  });

  test('the reasons put zero first and leave the count out', () => {
    const values = [
      { name: 'XMASQ_REASON_B', value: 1 },
      { name: 'XMASQ_REASON_A', value: 0 },
      { name: 'XMASQ_REASON_COUNT', value: 2 },
    ];
    const proto = emitReasonsProto({ ...EMPTY, enums: [{ name: 'xmasq_reason', values }] });
    expect(proto).toContain('package xmasq.v1;');
    expect(proto).toContain('enum Reason {\n  REASON_A = 0;\n  REASON_B = 1;\n}');
    expect(() => emitReasonsProto(EMPTY)).toThrow(/no enum xmasq_reason/);
  });
});
