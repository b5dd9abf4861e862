/** Traces of executed instructions, counted by function. */
import { expect, test } from '@jest/globals';
import { Trace, functionsOf, rowsOf, tableOf } from '../../../../e2e/bench/profile/functions.ts';

const KALLSYMS = `ffffffff81000100 T __sys_sendto
ffffffff81000200 t tcp_ack.constprop.0
ffffffff81000150 d not_code
ffffffffc0000000 t bpf_prog_90ae2457a74ef9fb_pod_egress4\t[bpf]
ffffffffc0000100 t bpf_prog_1111111111111111_pod_egress4\t[bpf]
`;

function counted(...addresses: readonly string[]): Trace {
  const trace = new Trace(functionsOf(KALLSYMS));
  for (const address of addresses) {
    trace.add(`Trace 0: 0x7f1adb231500 [0000000000000000/${address}/18c0c2b0/ff020000] `);
  }
  return trace;
}

test('what is at an address is the function that begins at or before it; programs of both nodes are one', () => {
  const costs = counted(
    ...['ffffffff81000100', 'ffffffff81000104', 'ffffffff81000151', 'ffffffff81000100', 'ffffffff81000204'],
    ...['ffffffffc0000000', 'ffffffffc0000100', '00007f0000000000'],
  ).costs();
  expect(Object.fromEntries(costs)).toEqual({
    __sys_sendto: 4,
    tcp_ack: 1,
    'pod_egress4 (eBPF)': 2,
    'user space': 1,
  });
});

test('costs are of a transaction: a request and its response', () => {
  const once = ['ffffffff81000100', 'ffffffff81000104', 'ffffffff81000200'];
  expect(
    counted(...once, ...once, ...once, ...once)
      .costs()
      .get('tcp_ack'),
  ).toBe(2);
  expect(() => counted('ffffffff81000200').costs()).toThrow('no transaction');
});

test('other lines do not count', () => {
  const trace = counted('ffffffff81000100', 'ffffffff81000100');
  trace.add('cpu_io_recompile: rewound execution of TB to ffffffff81000100');
  trace.add('');
  expect(trace.costs().get('__sys_sendto')).toBe(2);
});

test('what XMasq adds most comes first, and nothing is left out of the sums', () => {
  const rows = rowsOf(
    new Map([
      ['a', 100],
      ['b', 50],
      ['gone', 7],
    ]),
    new Map([
      ['a', 110],
      ['b', 90],
      ['program', 600],
    ]),
    2,
  );
  expect(rows).toEqual([
    { function: 'program', other: 0, xmasq: 600 },
    { function: 'b', other: 50, xmasq: 90 },
    { function: 'all others', other: 107, xmasq: 110 },
    { function: 'all', other: 157, xmasq: 800 },
  ]);
  expect(tableOf({ metric: 'tcp_rr', title: 'a request', to: 'host', rows }).split('\n')).toEqual(
    expect.arrayContaining(['| function, a request | host | XMasq | more |', '| program | 0 | 600 | 600 |']),
  );
});
