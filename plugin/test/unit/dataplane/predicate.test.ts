import { describe, expect, test } from '@jest/globals';
import { Reason } from '../../../src/dataplane/layout.ts';
import { admission, type ConntrackFacts } from '../../../src/dataplane/predicate.ts';
import { CtSctpState, CtStatus, CtTcpState, IpProtocol } from '../../../src/netlink/ctnetlink.ts';

const good: ConntrackFacts = {
  protocol: IpProtocol.udp,
  status: CtStatus.confirmed | CtStatus.seenReply | CtStatus.assured | CtStatus.srcNatDone | CtStatus.dstNatDone,
  mark: 0x03,
};
const tcp: ConntrackFacts = { ...good, protocol: IpProtocol.tcp, tcpState: CtTcpState.established };
const sctp: ConntrackFacts = { ...good, protocol: IpProtocol.sctp, sctpState: CtSctpState.established };

describe('admission by conntrack', () => {
  test.each([
    ['UDP, assured, from a local pod', good],
    ['UDP, assured, from the tunnel', { ...good, mark: 0x01 }],
    ['TCP, established', tcp],
    ['SCTP, established', sctp],
    ['ICMP, replied', { ...good, protocol: IpProtocol.icmp, status: CtStatus.confirmed | CtStatus.seenReply }],
    ['another protocol, replied', { ...good, protocol: 47, status: CtStatus.confirmed | CtStatus.seenReply }],
    ['bits of the mark beyond the first byte', { ...good, mark: 0xabcdef03 }],
  ])('passes %s', (_name, entry) => expect(admission(entry)).toBe(Reason.NONE));

  const withStatus = (status: number): ConntrackFacts => ({ ...good, status: good.status | status });
  test.each([
    ['no entry', undefined, Reason.CT_MISSING],
    ['an unconfirmed one', { ...good, status: good.status & ~CtStatus.confirmed }, Reason.CT_UNCONFIRMED],
    ['one without reply', { ...good, status: CtStatus.confirmed }, Reason.CT_UNREPLIED],
    ['source NAT', withStatus(CtStatus.srcNat), Reason.CT_STATUS],
    ['sequence adjustment', withStatus(CtStatus.seqAdjust), Reason.CT_STATUS],
    ['a dying one', withStatus(CtStatus.dying), Reason.CT_STATUS],
    ['a template', withStatus(CtStatus.template), Reason.CT_STATUS],
    ['a clash', withStatus(CtStatus.natClash), Reason.CT_STATUS],
    ['a helper', withStatus(CtStatus.helper), Reason.CT_STATUS],
    ['an offloaded one', withStatus(CtStatus.offload), Reason.CT_STATUS],
    ['a Service by status', withStatus(CtStatus.dstNat), Reason.CT_SERVICE],
    ['a Service by mark', { ...good, mark: 0x13 }, Reason.CT_SERVICE],
    ['committed but not allowed', { ...good, mark: 0 }, Reason.CT_NOT_ALLOWED],
    ['Service, not allowed', { ...good, mark: 0x10 }, Reason.CT_NOT_ALLOWED],
    ['SNAT', { ...good, mark: 0x23 }, Reason.CT_SNAT],
    ['hairpin', { ...good, mark: 0x43 }, Reason.CT_HAIRPIN],
    ['L7', { ...good, mark: 0x83 }, Reason.CT_L7],
    ['from the gateway', { ...good, mark: 0x02 }, Reason.CT_SOURCE],
    ['UDP not assured', { ...good, status: good.status & ~CtStatus.assured }, Reason.CT_STATE],
    ['TCP closing', { ...tcp, tcpState: CtTcpState.finWait }, Reason.CT_STATE],
    ['TCP opening', { ...tcp, tcpState: CtTcpState.synReceived }, Reason.CT_STATE],
    ['SCTP closing', { ...sctp, sctpState: CtSctpState.shutdownSent }, Reason.CT_STATE],
    ['SCTP without a state', { ...good, protocol: IpProtocol.sctp }, Reason.CT_STATE],
  ])('refuses %s', (_name, entry, reason) => expect(admission(entry)).toBe(reason));

  test('only marks 1 and 3 of all low bytes pass', () => {
    const passing = Array.from({ length: 256 }, (_, mark) => mark).filter((mark) => admission({ ...good, mark }) === 0);
    expect(passing).toEqual([1, 3]);
  });

  test('by the gateway come packets of pods that Antrea routes to, for the local pod to answer', () => {
    const passing = Array.from({ length: 256 }, (_, mark) => mark).filter(
      (mark) => admission({ ...good, mark }, { routed: true }) === 0,
    );
    expect(passing).toEqual([1, 2, 3]);
  });

  test('where the programs ask themselves, a Service is translated by AntreaProxy for a pod of this node, or not at all', () => {
    const services = { services: true };
    const translated = { ...good, status: good.status | CtStatus.dstNat };
    expect(admission(good, services)).toBe(Reason.NONE);
    expect(admission({ ...translated, mark: 0x13 }, services)).toBe(Reason.NONE);
    for (const entry of [translated, { ...good, mark: 0x13 }, { ...translated, mark: 0x11 }]) {
      expect(admission(entry, services)).toBe(Reason.CT_SERVICE);
    }
  });
});
