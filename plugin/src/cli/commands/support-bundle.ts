import { writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { DEFAULT_CONFIG_FILE } from '../../config/load.ts';
import type { Report } from '../../doctor/index.ts';
import { xmasq } from '../../gen/xmasq.js';
import { toJson } from '../../grpc/json.ts';
import { errorMessage } from '../../util/errors.ts';
import { integerArgument } from '../arguments.ts';
import { AdminClient } from '../client.ts';
import { DEFAULT_TIMEOUT_S, type CommandSpec, type Context } from '../context.ts';
import { examineNode, reportJson, reportText, type ExamineOptions } from '../examine.ts';
import { CliError, ExitCode } from '../exit.ts';
import { printPlain } from '../output.ts';
import { VERSION } from '../version.ts';

const v1 = xmasq.v1;

const DEFAULT_FLOWS = 1000;
const MAX_FLOWS = 10_000;

interface SupportBundleOptions extends ExamineOptions {
  readonly file?: string;
  readonly flows?: number;
}

export const supportBundleCommand: CommandSpec<SupportBundleOptions> = {
  name: 'support-bundle',
  declare: (command) =>
    command
      .description(
        'Put into one archive what a report about this node needs: doctor, status, flows, metrics, configuration, kernel. ' +
          'No keys or tokens, but names and addresses of pods and nodes.',
      )
      .option('--file <file>', 'the archive, a new file (default: xmasq-support-NODE-TIME.tar.gz in this directory)')
      .option('--flows <number>', `at most so many flows (default: ${DEFAULT_FLOWS})`, integerArgument(0, MAX_FLOWS))
      .option('--config <file>', `configuration of xmasq-agent (default: ${DEFAULT_CONFIG_FILE})`)
      .option('--bpf-dir <directory>', 'where xmasq.bpf.o and probe.bpf.o are'),
  run: async (context, options) => {
    const report = await examineNode(context, options);
    const name = `xmasq-support-${report.config?.nodeName ?? hostname()}-${timestamp(new Date())}`;
    const archive = await collect(context, report, name, options.flows ?? DEFAULT_FLOWS);
    const file = resolve(options.file ?? `${name}.tar.gz`);
    try {
      // Nobody else's business, and never in another file's place.
      await writeFile(file, archive.bytes, { mode: 0o600, flag: 'wx' });
    } catch (error) {
      throw new CliError(ExitCode.ERROR, `the archive cannot be written: ${errorMessage(error)}; see --file`);
    }
    const missing = archive.missing.map((part) => `  without ${part.name}: ${part.error}\n`).join('');
    await printPlain(
      context.io,
      context.output,
      () => ({ file, bytes: archive.bytes.length, missing: archive.missing }),
      () => `${file}: ${archive.bytes.length} bytes\n${missing}`,
    );
    return ExitCode.OK;
  },
};

interface Archive {
  readonly bytes: Buffer;
  readonly missing: readonly { readonly name: string; readonly error: string }[];
}

async function collect(context: Context, report: Report, name: string, maxFlows: number): Promise<Archive> {
  const { config, findings, ovsdb, uplinks } = report;
  const [{ Bundle }, { kernelFacts, deviceFacts, pinFacts }, { getHttp }] = await Promise.all([
    import('../../support/bundle.ts'),
    import('../../support/facts.ts'),
    import('../../doctor/index.ts'),
  ]);
  const bundle = new Bundle(name);
  await bundle.add('doctor.txt', () => reportText(findings));
  await bundle.addJson('doctor.json', () => reportJson(findings));
  await addAnswers(context, report.socket, maxFlows, bundle.addJson.bind(bundle));
  await bundle.add('metrics.txt', () => {
    const address = config?.metrics.address;
    if (address === undefined) throw new Error('metrics.address is not configured, or the configuration not known');
    return getHttp(address, '/metrics');
  });
  // As understood, not as written: a file may hold anything in its comments. Of keys it has the paths only.
  await bundle.addJson('configuration.json', () => {
    if (config === undefined) throw new Error('the configuration cannot be read: see doctor.txt');
    return config;
  });
  await bundle.addJson('kernel.json', kernelFacts);
  await bundle.addJson('devices.json', () => ({ uplinks, devices: deviceFacts() }));
  await bundle.addJson('data-plane.json', () => {
    if (config === undefined) throw new Error('the configuration cannot be read: see doctor.txt');
    return pinFacts(config);
  });
  await bundle.addJson('ovsdb.json', () => ovsdb ?? { known: false });
  const { entries } = bundle;
  return {
    bytes: bundle.archive({ version: VERSION, node: config?.nodeName, made: new Date().toISOString() }),
    missing: entries.flatMap((entry) => (entry.error === undefined ? [] : [{ name: entry.name, error: entry.error }])),
  };
}

/** What the sidecar answers; each part for itself, as one may take too long. */
async function addAnswers(
  { io, timeout = DEFAULT_TIMEOUT_S }: Context,
  socket: string,
  maxFlows: number,
  addJson: (name: string, read: () => unknown) => Promise<void>,
): Promise<void> {
  const asking = async <T>(ask: (client: AdminClient) => Promise<T>): Promise<T> => {
    const client = await AdminClient.connect({ socket, timeoutMs: timeout * 1000, stopped: io.stopped });
    try {
      return await ask(client);
    } finally {
      client.close();
    }
  };
  await addJson('version.json', () =>
    asking(async (client) => toJson(v1.VersionResponse, await client.call('version', new v1.VersionRequest()))),
  );
  await addJson('status.json', () =>
    asking(async (client) => toJson(v1.StatusResponse, await client.call('status', new v1.StatusRequest()))),
  );
  await addJson('peers.json', () =>
    asking(async (client) => toJson(v1.PeersResponse, await client.call('peers', new v1.PeersRequest()))),
  );
  await addJson('endpoints.json', () =>
    asking(async (client) => toJson(v1.EndpointsResponse, await client.call('endpoints', new v1.EndpointsRequest()))),
  );
  if (maxFlows === 0) return;
  await addJson('flows.json', () =>
    asking(async (client) => {
      const parts: Record<string, unknown>[] = [];
      for await (const part of client.flows(new v1.FlowsRequest({ limit: maxFlows }))) {
        parts.push(toJson(v1.FlowsResponse, part));
      }
      return parts;
    }),
  );
}

/** `20260829T101500Z` */
function timestamp(time: Date): string {
  return time.toISOString().replace(/[-:]|\.\d+/g, '');
}
