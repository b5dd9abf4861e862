/** L7 policies: all packets of a connection that such a rule allowed go to an engine and come back. IPv4. */
import { L7_OFPORTS } from './names.ts';
import { L7_MARK, PRIORITY, cookie, flow, goto } from './pipeline.ts';

/** reg0[0..3] of what comes back from the engine. */
const RETURNED = 7;
/** Above the hairpins. */
const REDIRECT = PRIORITY.high + 1;

/** Parts of a rule's `exec`: its connections go to the engine, which tells rules by this VLAN. */
export function redirectMarks(vlan: number): string[] {
  return ['load:1->NXM_NX_CT_MARK[7]', `load:${vlan}->NXM_NX_CT_LABEL[64..75]`];
}

/** A node's flows, once the engine's ports are there. */
export function l7Flows(): string[] {
  const { high } = PRIORITY;
  const id = cookie('l7');
  const returned = `reg0=${RETURNED}/0xf`;
  return [
    flow(
      'Output',
      REDIRECT,
      `ip,ct_mark=${L7_MARK}/${L7_MARK}`,
      `push_vlan:0x8100,move:NXM_NX_CT_LABEL[64..75]->OXM_OF_VLAN_VID[0..11],output:${L7_OFPORTS.to}`,
      id,
    ),
    // Conntrack and policies have seen it; only the way is looked for again.
    flow(
      'Classifier',
      high,
      `in_port=${L7_OFPORTS.from},vlan_tci=0x1000/0x1000`,
      `pop_vlan,load:${RETURNED}->NXM_NX_REG0[0..3],${goto('L3Forwarding')}`,
      id,
    ),
    flow('L3DecTTL', high, `ip,${returned}`, goto('L2ForwardingCalc'), id),
    flow('IngressSecurityClassifier', high, `ip,${returned}`, goto('Output'), id),
  ];
}
