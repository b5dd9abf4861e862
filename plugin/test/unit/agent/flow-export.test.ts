import { createServer, type AddressInfo } from 'node:net';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import type { AgentParts } from '../../../src/agent/backend.ts';
import { FlowExportFollower, flowExportFollower } from '../../../src/agent/flow-export.ts';
import { parseConfig } from '../../../src/config/load.ts';
import { Degradations } from '../../../src/dataplane/degradations.ts';
import { monotonic } from '../../../src/dataplane/ports.ts';
import { quiet } from '../dataplane/fakes.ts';

test('an address that is taken is a degradation, and nothing else', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'xmasq-follower-'));
  const other = createServer();
  await new Promise<void>((resolve) => void other.listen(0, '127.0.0.1', resolve));
  const address = `127.0.0.1:${(other.address() as AddressInfo).port}`;
  const text = `nodeName: n\nclusterState: {file: /x}\nfeatureGates: {FlowExport: true}\nflowExport: {address: "${address}", certificates: ${directory}}\n`;
  const config = parseConfig('x', text);
  const degradations = new Degradations(quiet);
  const parts = { config, degradations, endpoints: { addresses: new Map() }, now: monotonic } as unknown as AgentParts;
  const follower = flowExportFollower(parts, quiet) as FlowExportFollower;
  try {
    await follower.start();
    expect(degradations.list()).toMatchObject([
      { what: expect.stringMatching(/^flow export cannot be served: .*EADDRINUSE/) as unknown, where: address },
    ]);
    expect(follower.info).toMatchObject({ connected: false, synced: false, required: false });
    await new Promise((resolve) => other.close(resolve));
    await follower.start();
    expect([degradations.size, follower.running === undefined]).toEqual([0, false]);
  } finally {
    await follower.stop();
    other.close();
    rmSync(directory, { recursive: true });
  }
}, 20_000);

test('without the gate there is none', () => {
  const config = parseConfig('x', 'nodeName: n\nclusterState: {file: /x}\n');
  expect(flowExportFollower({ config } as unknown as AgentParts, quiet)).toBeUndefined();
});
