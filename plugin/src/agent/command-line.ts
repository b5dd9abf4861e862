/** What the command line of xmasq-agent takes. Nothing is run here. */
import { Command, InvalidArgumentError } from 'commander';
import { DEFAULT_CONFIG_FILE } from '../config/load.ts';

/** Exit codes, as the command line xmasq has them. */
export const EXIT = { ok: 0, error: 1, usage: 2 } as const;

/** What each means, for docs/cli.md. */
export const EXIT_MEANINGS: Readonly<Record<(typeof EXIT)[keyof typeof EXIT], string>> = {
  [EXIT.ok]: 'ended as asked',
  [EXIT.error]: 'error: one line on standard error says what, where, and what to do',
  [EXIT.usage]: 'wrong usage',
};

/** Seconds that `uninstall` waits for nodes: longer than a drain takes, shorter than Helm waits for a hook. */
const UNINSTALL_S = 180;
const MAX_UNINSTALL_S = 3600;

interface CommonOptions {
  /** Path of the configuration file. */
  readonly config: string;
}

export interface RunOptions extends CommonOptions {
  readonly bpfDir?: string;
}

export interface CleanupOptions extends CommonOptions {
  readonly force?: boolean;
  readonly wait?: boolean;
}

export interface UninstallOptions {
  /** Of the release. */
  readonly namespace: string;
  readonly kubeconfig?: string;
  /** Seconds, for all nodes. */
  readonly timeout: number;
}

/** What is called for each command once its options have been parsed. */
export interface AgentCommands {
  run(options: RunOptions): void;
  cleanup(options: CleanupOptions): void;
  uninstall(options: UninstallOptions): void;
  certificates(directory: string): void;
  version(): void;
}

/** The program `xmasq-agent`; parsing throws CommanderError after help and every mistake. */
export function createAgentProgram(commands: AgentCommands): Command {
  const program = new Command('xmasq-agent')
    .description('XMasq for Antrea: loads and steers the data plane of one node')
    .exitOverride()
    .showHelpAfterError();
  program
    .command('run')
    .description('load or take over the data plane and serve; SIGTERM ends this process, not the data plane')
    .option('--config <file>', 'configuration', DEFAULT_CONFIG_FILE)
    .option('--bpf-dir <directory>', 'where xmasq.bpf.o and probe.bpf.o are')
    .action((options: RunOptions) => commands.run(options));
  program
    .command('cleanup')
    .description('remove the data plane from this node: programs, maps, pins, qdiscs')
    .option('--config <file>', 'configuration', DEFAULT_CONFIG_FILE)
    .option('--wait', 'drain the node first if it is not drained, and wait for that')
    .option('--force', 'do not wait for peers: what they send on the fast path is lost until they notice')
    .action((options: CleanupOptions) => commands.cleanup(options));
  program
    .command('uninstall')
    .description('make the sidecars of a release leave their nodes, and wait for that: what the hook of the chart runs')
    .requiredOption('--namespace <name>', 'namespace of the release')
    .option('--kubeconfig <file>', "how the Kubernetes API is reached; default: the pod's service account")
    .option('--timeout <seconds>', 'for all nodes', timeoutSeconds, UNINSTALL_S)
    .action((options: UninstallOptions) => commands.uninstall(options));
  program
    .command('certificates')
    .description(
      'issue certificates for flow export that all nodes share, or renew those of the directory that are due',
    )
    .argument('<directory>', 'where they are, or are to be')
    .action((directory: string) => commands.certificates(directory));
  program
    .command('version')
    .description('show the version')
    .action(() => commands.version());
  return program;
}

function timeoutSeconds(text: string): number {
  const value = Number(text);
  if (!(value >= 1 && value <= MAX_UNINSTALL_S)) {
    throw new InvalidArgumentError(`expected seconds, from 1 to ${MAX_UNINSTALL_S}`);
  }
  return value;
}
