import { z } from 'zod';
import { mapping, nodeName, text, wholeNumber } from '../config/fields.ts';
import { parseAddress4, parsePrefix4, formatPrefix4 } from './prefix4.ts';

/** XMASQ_MAX_PEERS: peer id 0 is never used, and this node is not its own peer. */
const MAX_NODES = 8192;
const MAX_PREFIXES = 16;

const address = text('a unicast IPv4 address, as 192.168.1.2', (value) => {
  const first = Math.floor((parseAddress4(value) ?? 0) / 2 ** 24);
  return first !== 0 && first !== 127 && first < 224;
});

const prefix = z.string({ error: 'expected an IPv4 prefix, as 10.10.1.0/24' }).superRefine((value, context) => {
  const parsed = parsePrefix4(value);
  if (parsed === undefined || parsed.length < 8) {
    context.addIssue({ code: 'custom', message: 'expected an IPv4 prefix of /8 or longer, as 10.10.1.0/24' });
  } else if (formatPrefix4(parsed) !== value) {
    context.addIssue({ code: 'custom', message: `has host bits; expected ${formatPrefix4(parsed)}` });
  }
});

/** What a file of static cluster state holds. */
export const clusterFileSchema = mapping({
  nodes: z
    .array(
      mapping({
        name: nodeName(),
        address,
        podCIDRs: z
          .array(prefix, { error: 'expected a list of IPv4 prefixes' })
          .max(MAX_PREFIXES, { error: `expected at most ${MAX_PREFIXES} prefixes` })
          .default([]),
        capability: mapping({
          protocol: wholeNumber(1, 255),
          incarnation: text('1 to 128 printable characters', (value) => /^[\x21-\x7e]{1,128}$/.test(value)),
        }).optional(),
      }),
      { error: 'expected a list of nodes' },
    )
    .max(MAX_NODES, { error: `expected at most ${MAX_NODES} nodes` }),
});

export type ClusterFile = z.output<typeof clusterFileSchema>;
