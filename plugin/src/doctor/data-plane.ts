/** Pins of the data plane: where they go, what an earlier start left there, and whether it comes first at the uplink. */
import { existsSync } from 'node:fs';
import type { BpfFiles } from '../agent/bpf-files.ts';
import { openPinned } from '../bpf/fd.ts';
import { programInfo } from '../bpf/info.ts';
import { queryTcx } from '../bpf/link.ts';
import { BPFFS } from '../bpf/pins.ts';
import type { Config } from '../config/config.ts';
import { chooseAttacher, type Attacher } from '../dataplane/attach.ts';
import { CommonConfig } from '../dataplane/common-config.ts';
import { IncompatibleStateError, requireAdoptable } from '../dataplane/load.ts';
import { Notes } from '../dataplane/notes.ts';
import { PinLayout } from '../dataplane/pins.ts';
import { hasCapability } from '../dataplane/probe.ts';
import { HOOKS } from '../dataplane/programs.ts';
import { displacement, UPLINK_PROGRAMS, type UplinkDevice, type UplinkProgram } from '../dataplane/uplink.ts';
import { filters } from '../netlink/rtnetlink.ts';
import { failed, failure, ok, passed, problemOf, warning, type Outcome, type Verdict } from './finding.ts';

/** Mounts nothing, unlike the sidecar, which does so where it may: as this process, is supposed. */
export function checkBpffs({ bpffs }: Config): Outcome<PinLayout> {
  const pins = new PinLayout(bpffs);
  if (pins.needsMount() && hasCapability('CAP_SYS_ADMIN')) {
    const what =
      'no bpf file system is mounted there yet; xmasq-agent mounts it if it has CAP_SYS_ADMIN, as this process has';
    const action = `mount it at boot (mount -t bpf bpf ${BPFFS}): in a container it cannot be mounted`;
    return { verdicts: [warning({ what, where: BPFFS, action })], value: pins };
  }
  try {
    pins.requireBpffs();
    return { verdicts: [ok(`${bpffs} is on a bpf file system, and writable`)], value: pins };
  } catch (error) {
    return failure(problemOf(error, bpffs, `mount a bpf file system at ${BPFFS}`));
  }
}

/** What an earlier start left: the sidecar replaces what does not fit this build and the configured sizes. */
export function checkPinned(config: Config, pins: PinLayout, files: BpfFiles): Outcome<{ readonly loaded: boolean }> {
  if (!pins.exists()) return { verdicts: [ok('no data plane is loaded yet')], value: { loaded: false } };
  try {
    requireAdoptable({ pins, objectPath: files.dataPlane, sizes: config.maps });
    return { verdicts: [ok('the loaded data plane fits this build and configuration')], value: { loaded: true } };
  } catch (error) {
    if (error instanceof IncompatibleStateError && isReplaceable(pins)) {
      const what = `the loaded data plane cannot be taken over: ${error.differences.join('; ')}; the sidecar replaces it when it starts`;
      const action =
        'nothing, if half a minute on the slow path does no harm; else set maps back to their former sizes';
      return { verdicts: [warning({ what, where: pins.root, action })], value: { loaded: true } };
    }
    return failure(problemOf(error, pins.root, 'see docs/admin.md, "Drain and cleanup"'));
  }
}

/** As the sidecar judges: it is a data plane, whichever version's. */
function isReplaceable(pins: PinLayout): boolean {
  using config = CommonConfig.open(pins.map('config'));
  return config !== undefined;
}

/** Programs of others that run before ours at the uplinks. */
export function checkTc(pins: PinLayout, loaded: boolean, uplinks: readonly UplinkDevice[]): Outcome {
  const devices = new Map(uplinks.map(({ ifindex, device }) => [ifindex, device]));
  const attacher = chooseAttacher(pins, new Notes(pins.notes));
  if (!loaded) return passed(`nothing of XMasq is attached yet (it will be by ${attacher.mode}, first in its chains)`);
  const verdicts = [...devices].flatMap(([ifindex, device]) =>
    UPLINK_PROGRAMS.map((name) => place(attacher, pins, name, { ifindex, device })),
  );
  return { verdicts, value: true };
}

function place(
  attacher: Attacher,
  pins: PinLayout,
  name: UplinkProgram,
  { ifindex, device }: Pick<UplinkDevice, 'ifindex' | 'device'>,
): Verdict {
  const path = pins.program(name);
  const { direction } = HOOKS[name];
  if (existsSync(path)) {
    using fd = openPinned(path);
    const id = programInfo(fd.fd).id;
    switch (attacher.position({ name, fd: fd.fd, id }, ifindex)) {
      case 'first':
        return ok(`${name} comes first at ${direction} of ${device}`);
      case 'later': {
        const { where, ...problem } = displacement(name, device);
        return failed({ ...problem, where: `${where}: programs ${chain(attacher, ifindex, direction, id)}` });
      }
      case 'absent':
    }
  }
  return warning({
    what: `${name} is not attached`,
    where: `${direction} of ${device}`,
    action: 'start xmasq-agent, which attaches it again within a second',
  });
}

/** Numbers of the programs in the order in which they run, as `bpftool prog show id NUMBER` takes them. */
function chain(attacher: Attacher, ifindex: number, direction: 'ingress' | 'egress', own: number): string {
  const ids =
    attacher.mode === 'tcx'
      ? queryTcx(ifindex, direction)
      : filters(ifindex, direction).flatMap(({ bpfId }) => bpfId ?? []);
  return ids.map((id) => (id === own ? `${id} (XMasq)` : String(id))).join(', ');
}
