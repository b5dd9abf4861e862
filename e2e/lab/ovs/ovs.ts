/**
 * The lab on Open vSwitch: nodes and pods are network namespaces as in the native lab, the slow path is each node's own Open
 * vSwitch (kernel datapath, by default Geneve) with a pipeline like Antrea's. Needs a kernel with the openvswitch module.
 */
import { existsSync } from 'node:fs';
import { LabError } from '../lab.ts';
import type { LabOptions, Provider } from '../lab.ts';
import { upOn } from '../native/native.ts';
import type { NativeLab } from '../native/native.ts';
import { run } from '../native/process.ts';
import { TUNNEL_PORTS } from '../packet.ts';
import { OvsNode } from './node.ts';
import { OvsPolicy } from './policy.ts';

export { residue, sweep } from '../native/native.ts';
export type { NativeLab } from '../native/native.ts';

/** This provider. */
export const PROVIDER: Provider = { name: 'ovs', tunnel: { type: 'geneve', port: TUNNEL_PORTS.geneve } };

/** A lab whose nodes have `ovs`, and whose policy has stages. */
export type OvsLab = NativeLab<OvsNode, OvsPolicy>;

/** Modules of the kernel's datapath; the second is Open vSwitch's side of Geneve. */
const MODULES = ['openvswitch', 'vport-geneve'];

/** Builds a lab; see the native lab's `up`. `spoofGuard` is on in any case. */
export async function up(options: LabOptions = {}): Promise<OvsLab> {
  refuseNativeOnly(options);
  await needModules();
  return upOn(
    {
      tunnels: ['geneve', 'vxlan'],
      node: (context, plan, nodeOptions) => new OvsNode(context, plan, nodeOptions),
      policy: (nodes: readonly OvsNode[]) => new OvsPolicy(nodes),
    },
    options,
  );
}

/** True if this kernel has the datapath, loaded or not. */
export async function hasDatapath(): Promise<boolean> {
  if (existsSync('/sys/module/openvswitch') && existsSync('/sys/module/vport_geneve')) return true;
  const { code } = await run(['modprobe', '-n', '-q', '-a', ...MODULES], 'machine', { check: false });
  return code === 0;
}

function refuseNativeOnly(options: LabOptions): void {
  const refuse = (option: keyof LabOptions, what: string): never => {
    throw new LabError(`lab option ${option}: the lab on Open vSwitch has no ${what}`);
  };
  if (options.ipv6 === true && options.router === true) refuse('ipv6', 'IPv6 behind a router');
  if (options.underlay !== undefined && options.underlay !== (options.ipv6 === true ? 'dual' : 'ipv4')) {
    refuse('underlay', 'underlay but the default one');
  }
  if ((options.encapMode ?? 'encap') !== 'encap') refuse('encapMode', 'mode but encap');
  if (options.apart !== undefined) refuse('apart', 'subnets apart');
  if (options.tunnel?.vni !== undefined) refuse('tunnel', 'tunnel with another network identifier than 0');
}

async function needModules(): Promise<void> {
  try {
    await run(['modprobe', '-a', ...MODULES], 'machine');
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new LabError(
      `the Open vSwitch lab needs the kernel module openvswitch with Geneve; without it, use the micro-VM: ${reason}`,
    );
  }
}
