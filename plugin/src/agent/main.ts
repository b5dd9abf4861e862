/** xmasq-agent: the sidecar's command line. */
import { once } from 'node:events';
import { resolve } from 'node:path';
import { CommanderError } from 'commander';
import { pino } from 'pino';
import { loadConfig } from '../config/load.ts';
import { IssuedCertificates } from '../flowexport/index.ts';
import { apiClient } from '../kubernetes/index.ts';
import { errorMessage } from '../util/errors.ts';
import { findBpfFiles } from './bpf-files.ts';
import { cleanup } from './cleanup.ts';
import {
  EXIT,
  createAgentProgram,
  type CleanupOptions,
  type RunOptions,
  type UninstallOptions,
} from './command-line.ts';
import { superviseAgent } from './supervise.ts';
import { uninstall } from './uninstall.ts';
import { versionInfo } from './version.ts';

async function run({ config: file, bpfDir }: RunOptions): Promise<number> {
  const config = await loadConfig(file);
  const log = pino({ level: config.log.level, base: { node: config.nodeName } });
  // Whatever is broken in here must not stop packets: they do not need this process. A restart finds everything.
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, 'unexpected error: the sidecar ends, the data plane goes on');
    process.exit(EXIT.error);
  });
  const end = new AbortController();
  void Promise.race([once(process, 'SIGTERM'), once(process, 'SIGINT')]).then(() => end.abort());
  await superviseAgent(config, findBpfFiles(bpfDir), log, end.signal);
  return EXIT.ok;
}

async function clean(options: CleanupOptions): Promise<number> {
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

async function leave({ namespace, kubeconfig, timeout }: UninstallOptions): Promise<number> {
  const api = apiClient({ kubeconfig });
  try {
    const nodes = await uninstall({
      api,
      namespace,
      timeoutMs: timeout * 1000,
      log: pino({ level: 'warn', base: {} }, pino.destination(2)),
      say: (line) => process.stdout.write(`${line}\n`),
    });
    process.stdout.write(`XMasq is removed from ${nodes} nodes\n`);
  } finally {
    api.close();
  }
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
  const program = createAgentProgram({
    run: (options) => {
      result = run(options);
    },
    cleanup: (options) => {
      result = clean(options);
    },
    uninstall: (options) => {
      result = leave(options);
    },
    certificates: (directory) => {
      result = certificates(directory);
    },
    version: () => {
      result = Promise.resolve(version());
    },
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
