/** How flows look in tables and lines. */
import { xmasq } from '../gen/xmasq.js';
import { reasonName } from '../grpc/reasons.ts';
import type { Column } from './table.ts';
import { addressAndPort, protocolName } from './text.ts';
import { enumWord, podText } from './words.ts';

const v1 = xmasq.v1;

type Flow = xmasq.v1.Flow.$Properties;

/** Columns that say which flow it is, see `endsColumns`. */
export const ENDS: readonly Column[] = [
  { name: 'POD' },
  { name: 'SOURCE' },
  { name: 'DESTINATION' },
  { name: 'PROTO' },
  { name: 'PEER' },
];

export function endsColumns(flow: Flow): string[] {
  return [
    podText(flow.sourcePod),
    sourceText(flow),
    addressAndPort(flow.destinationIp ?? '', flow.destinationPort ?? 0),
    protocolName(flow.protocol ?? 0),
    flow.sameNode === true ? '(same node)' : (flow.peer ?? ''),
  ];
}

/** Columns that say how its packets go, see `wayColumns`. */
export const WAY: readonly Column[] = [{ name: 'PATH' }, { name: 'MODE' }, { name: 'BECAUSE' }];

export function wayColumns(flow: Flow): string[] {
  const reason = flow.reason ?? 0;
  return [isFast(flow) ? 'fast' : 'slow', isFast(flow) ? modeText(flow) : '', reason === 0 ? '' : reasonName(reason)];
}

export function isFast({ path }: Flow): boolean {
  return path === v1.FlowPath.FLOW_PATH_FAST;
}

/** How its packets go, in one word. */
export function modeText({ mode }: Flow): string {
  return enumWord(v1.TransmitMode, 'TRANSMIT_MODE_', mode ?? 0);
}

/** `10.1.2.3:80`, of echo messages `10.1.2.3 id 7`. */
function sourceText({ sourceIp, sourcePort, icmpId }: Flow): string {
  const source = addressAndPort(sourceIp ?? '', sourcePort ?? 0);
  return icmpId == null ? source : `${source} id ${icmpId}`;
}

/** Which flow it is, in a line. */
export function flowText(flow: Flow): string {
  const [pod = '', source = '', destination = '', protocol = '', peer = ''] = endsColumns(flow);
  const to = podText(flow.destinationPod);
  const ends = `${pod === '' ? '' : `${pod} `}${source} > ${to === '' ? '' : `${to} `}${destination}`;
  return `${protocol} ${ends}${peer === '' ? '' : `, ${flow.sameNode === true ? 'same node' : `node ${peer}`}`}`;
}

/** Which keys are known to whom, in one word: ours to the peer, the peer's to us. Empty: none, or none are needed. */
export function keysText({ keys, sameNode }: Flow): string {
  if (sameNode === true || !keys) return '';
  if (keys.received === true) return keys.peerComplete === true ? 'both' : 'peer';
  if (keys.peerComplete === true) return 'own';
  return keys.announced === true ? 'sent' : '';
}
