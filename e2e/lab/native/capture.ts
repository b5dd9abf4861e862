/** Packet captures by tcpdump into a file of the lab's directory, decoded by our own reader. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { sleep } from '../lab.ts';
import type { Capture, CaptureOptions, Place } from '../lab.ts';
import { readPcap } from '../pcap.ts';
import type { LabContext } from './place.ts';

/** The kernel hands packets over at once (immediate mode); this is for tcpdump to write what it has. */
export const SETTLE_MS = 60;

/** What tcpdump prints once it captures. */
export const LISTENING = /listening on/;

/* The buffer has one place of this size for each packet, rounded up to a power of two: room for a 64 KB GSO packet. */
const WHOLE_PACKET = 65_400;
const BUFFER_KIB = 65_536;

let serial = 0;

/** Starts tcpdump in a place; resolved once it listens. Not promiscuous, so the capture changes nothing. */
export async function startCapture(
  place: Place,
  { dir, tunnelPorts }: Pick<LabContext, 'dir' | 'tunnelPorts'>,
  options: CaptureOptions,
): Promise<Capture> {
  const device = options.device ?? place.device;
  serial += 1;
  const path = join(dir, `capture-${serial}-${place.name}-${device}.pcap`);
  const proc = await place.spawn(tcpdumpCommand(device, path, options), { name: `tcpdump-${place.name}` });
  await proc.waitFor(LISTENING);
  return {
    path,
    async stop() {
      await sleep(SETTLE_MS);
      await proc.stop('SIGINT', 5000);
      return { packets: readPcap(readFileSync(path), tunnelPorts), dropped: droppedPackets(proc.output()) };
    },
  };
}

/** The command that captures into a file, every packet as soon as it is there. */
export function tcpdumpCommand(device: string, file: string, options: Omit<CaptureOptions, 'device'>): string[] {
  return [
    ...['tcpdump', '-p', '-n', '-i', device, '-s', String(options.snapLength ?? WHOLE_PACKET)],
    ...['-B', String(BUFFER_KIB), '-U', '--immediate-mode', '-Z', 'root'],
    ...(options.direction === undefined ? [] : ['-Q', options.direction]),
    ...['-w', file],
    ...(options.filter === undefined ? [] : [options.filter]),
  ];
}

/** Packets that the capture itself lost, by what tcpdump prints at its end. */
export function droppedPackets(output: string): number {
  return Number(/(\d+) packets? dropped by kernel/.exec(output)?.[1] ?? 0);
}
