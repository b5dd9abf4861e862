/** What Prometheus and the kubelet ask of a sidecar at work. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { debianTree } from '../lab/debian.ts';
import { eventually } from '../lab/lab.ts';
import { up, type NativeLab } from '../lab/native/native.ts';
import { startSidecars, type LabSidecars } from '../lab/sidecar.ts';

const ADDRESS = '127.0.0.1:9108';

let lab: NativeLab;
let sidecars: LabSidecars;

beforeAll(async () => {
  lab = await up();
  sidecars = await startSidecars(lab, { metricsAddress: ADDRESS });
});
afterAll(async () => {
  await sidecars.down();
  await lab.down();
});

/** Asks inside the node, where the sidecar listens. */
async function get(path: string): Promise<{ readonly status: number; readonly text: string }> {
  const script = `const r = await fetch('http://${ADDRESS}${path}'); console.log(JSON.stringify({status: r.status, text: await r.text()}))`;
  const { stdout } = await lab.node(0).exec([process.execPath, '--input-type=module', '-e', script]);
  return JSON.parse(stdout) as { status: number; text: string };
}

test('promtool finds nothing wrong with the metrics', async () => {
  const promtool = join(await debianTree('prometheus', ['prometheus']), 'usr/bin/promtool');
  const { text } = await get('/metrics');
  expect(text).toContain('xmasq_decisions_total{decision="fast_tx"}');
  const check = (input: string): ReturnType<typeof spawnSync> =>
    spawnSync(promtool, ['check', 'metrics'], { input, encoding: 'utf8', timeout: 20_000 });
  expect(check(text)).toMatchObject({ status: 0, stderr: '' });
  // It does find something where there is something.
  expect(check('# TYPE Bad_total gauge\nBad_total 1\n').status).not.toBe(0);
}, 120_000);

test('healthy as long as it answers, ready while it does its part', async () => {
  expect(await get('/healthz')).toMatchObject({ status: 200 });
  await eventually('ready', async () => (await get('/readyz')).status === 200);
  const drained = sidecars.node(0).cli(['drain']);
  expect((await drained).code).toBe(0);
  expect(await get('/readyz')).toMatchObject({ status: 503, text: 'draining\n' });
  expect(await get('/healthz')).toMatchObject({ status: 200 });
});
