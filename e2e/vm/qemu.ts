/** QEMU's command line for a micro-VM. */
import type { PreparedKernel } from './fetch.ts';

/** Hardware virtualisation or the emulator. */
export type Accelerator = 'kvm' | 'tcg';

/** What a machine is made of. */
export interface Machine {
  readonly kernel: PreparedKernel;
  readonly accelerator: Accelerator;
  /** The checkout, absolute. */
  readonly projectRoot: string;
  /** QEMU's descriptor of the connected socket behind the agent's port. */
  readonly agentFd: number;
  /** MiB. */
  readonly memory: number;
  readonly processors: number;
}

/** The name guest/agent.c looks for. */
const PORT_NAME = 'xmasq.agent';

/** Paths on the kernel's command line end at a blank. */
function word(file: string): string {
  if (/\s/.test(file)) throw new Error(`the micro-VM cannot use a path with blanks: ${file}`);
  return file;
}

/** QEMU's arguments, without the program. */
export function qemuArguments(machine: Machine): string[] {
  const commandLine = [
    'console=ttyS0',
    'quiet',
    'mitigations=off',
    // A busy host lets the emulated timer's test fail, and the kernel gives up.
    'no_timer_check',
    'panic=-1',
    `xmasq.modules=${word(machine.kernel.modules)}`,
    `xmasq.project=${word(machine.projectRoot)}`,
  ].join(' ');
  return [
    ...['-M', 'q35', '-cpu', 'max', '-smp', String(machine.processors), '-m', `${machine.memory}M`],
    ...['-accel', machine.accelerator],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-nic', 'none', '-no-reboot'],
    // The console is QEMU's standard output.
    ...['-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console'],
    ...['-kernel', machine.kernel.image, '-initrd', machine.kernel.initramfs, '-append', commandLine],
    ...['-virtfs', 'local,id=root,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap'],
    ...['-chardev', `socket,id=agent,fd=${machine.agentFd}`],
    ...['-device', 'virtio-serial-pci', '-device', `virtserialport,chardev=agent,name=${PORT_NAME}`],
  ];
}
