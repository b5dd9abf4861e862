/** xmasq-agent: the sidecar's command line. */
import { once } from 'node:events';
import { resolve } from 'node:path';
import { Command, CommanderError } from 'commander';
import { pino } from 'pino';
import { DEFAULT_CONFIG_FILE, loadConfig } from '../config/load.ts';
import { IssuedCertificates } from '../flowexport/index.ts';
import { errorMessage } from '../util/errors.ts';
import { findBpfFiles } from './bpf-files.ts';
import { cleanup } from './cleanup.ts';
import { startAgent } from './run.ts';
import { versionInfo } from './version.ts';

/** Exit codes, as the command line xmasq has them. */
const EXIT = { ok: 0, error: 1, usage: 2 } as const;

interface CommonOptions {
  readonly config: string;
}

async function run({ config: file, bpfDir }: CommonOptions & { readonly bpfDir?: string }): Promise<number> {
  const config = await loadConfig(file);
  const log = pino({ level: config.log.level, base: { node: config.nodeName } });
  // Whatever is broken in here must not stop packets: they do not need this process. A restart finds everything.
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, 'unexpected error: the sidecar ends, the data plane goes on');
    process.exit(EXIT.error);
  });
  const signal = Promise.race([once(process, 'SIGTERM'), once(process, 'SIGINT')]);
  const agent = await startAgent(config, findBpfFiles(bpfDir), log);
  await signal;
  log.info('stopping; the data plane goes on');
  await agent.stop();
  return EXIT.ok;
}

async function clean(options: CommonOptions & { readonly force?: boolean; readonly wait?: boolean }): Promise<number> {
  const config = await loadConfig(options.config);
  const { attachments, pins } = await cleanup(config, {
    force: options.force === true,
    wait: options.wait === true,
    say: (line) => process.stdout.write(`${line}\n`),
  });
  process.stdout.write(
    attachments + pins === 0
      ? `nothing to remove at ${config.bpffs}\n`
      : `removed ${attachments} attachments and ${pins} pins at ${config.bpffs}\n`,
  );
  return EXIT.ok;
}

async function certificates(directory: string): Promise<number> {
  const problems: string[] = [];
  const issued = await IssuedCertificates.open({
    directory: resolve(directory),
    onProblem: (problem) => {
      if (problem !== undefined) problems.push(problem.what);
    },
  });
  issued.close();
  if (problems.length > 0) throw new Error(problems.join('; '));
  process.stdout.write(
    `${resolve(directory)}: ca.crt, server.crt and .key for the nodes, client.crt and .key for antrea-agent\n`,
  );
  return EXIT.ok;
}

function version(): number {
  const { version: number, commit, protocolVersion, layoutVersion } = versionInfo();
  const suffix = commit === '' ? '' : ` (${commit})`;
  process.stdout.write(`xmasq-agent ${number}${suffix}, protocol ${protocolVersion}, map layout ${layoutVersion}\n`);
  return EXIT.ok;
}

/** Runs the command line. @returns the exit code */
async function main(argv: readonly string[]): Promise<number> {
  let result: Promise<number> = Promise.resolve(EXIT.ok);
  const program = new Command('xmasq-agent')
    .description('XMasq for Antrea: loads and steers the data plane of one node')
    .exitOverride()
    .showHelpAfterError();
  program
    .command('run')
    .description('load or take over the data plane and serve; SIGTERM ends this process, not the data plane')
    .option('--config <file>', 'configuration', DEFAULT_CONFIG_FILE)
    .option('--bpf-dir <directory>', 'where xmasq.bpf.o and probe.bpf.o are')
    .action((options: CommonOptions & { bpfDir?: string }) => {
      result = run(options);
    });
  program
    .command('cleanup')
    .description('remove the data plane from this node: programs, maps, pins, qdiscs')
    .option('--config <file>', 'configuration', DEFAULT_CONFIG_FILE)
    .option('--wait', 'drain the node first if it is not drained, and wait for that')
    .option('--force', 'do not wait for peers: what they send on the fast path is lost until they notice')
    .action((options: CommonOptions & { force?: boolean; wait?: boolean }) => {
      result = clean(options);
    });
  program
    .command('certificates <directory>')
    .description(
      'issue certificates for flow export that all nodes share, or renew those of the directory that are due',
    )
    .action((directory: string) => {
      result = certificates(directory);
    });
  program
    .command('version')
    .description('show the version')
    .action(() => {
      result = Promise.resolve(version());
    });
  try {
    program.parse(argv);
    return await result;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    process.stderr.write(`xmasq-agent: ${errorMessage(error)}\n`);
    return EXIT.error;
  }
}

process.exitCode = await main(process.argv);
