import { z } from 'zod';
import { mapping, nodeName, oneOf, text, wholeNumber } from '../config/fields.ts';
import { oneOfEach, podCidr, transportAddress } from './addresses.ts';

/** XMASQ_MAX_PEERS: peer id 0 is never used, and this node is not its own peer. */
const MAX_NODES = 8192;
const MAX_PREFIXES = 16;

const EXAMPLES = 'as 192.168.1.2 or fd00::2';

const address = text(`a unicast address, ${EXAMPLES}`, (value) => transportAddress(value) !== undefined);

const addresses = z
  .array(address, { error: 'expected a list of addresses' })
  .refine((list) => list.length >= 1 && oneOfEach(list).length === list.length, {
    error: `expected one or two addresses, one of each family, ${EXAMPLES}`,
  });

const prefix = z.string({ error: 'expected an IP prefix, as 10.10.1.0/24' }).superRefine((value, context) => {
  const canonical = podCidr(value);
  if (canonical === undefined) {
    context.addIssue({
      code: 'custom',
      message: 'expected an IP prefix of /8 or longer, as 10.10.1.0/24 or fd00:10:1::/64',
    });
  } else if (canonical !== value) {
    context.addIssue({ code: 'custom', message: `is not as usual, or has host bits; expected ${canonical}` });
  }
});

/** What a file of static cluster state holds. */
export const clusterFileSchema = mapping({
  trafficEncapMode: oneOf(['encap', 'noEncap', 'hybrid']).default('encap'),
  nodes: z
    .array(
      mapping({
        name: nodeName(),
        address: address.optional(),
        addresses: addresses.optional(),
        podCIDRs: z
          .array(prefix, { error: 'expected a list of IP prefixes' })
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
