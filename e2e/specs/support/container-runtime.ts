/** Ways to run the chart's container: its command, capabilities and mounts, in a network of its own, on the test's bpf file system. */
import type { Container } from '../../chart/renderings.ts';
import type { ExecResult, Proc } from '../../lab/lab.ts';

/** Where the container's mounts lead, by the names of the pod's volumes. */
export type Sources = Readonly<Record<string, string>>;

/** The source of a mount that is a file system of its own. */
export type NewFileSystem = 'bpf' | 'tmpfs';

export interface ContainerRuntime {
  /** The command line that runs a container's command; a program that is killed takes the container with it. */
  readonly argv: (command: readonly string[], capabilities: readonly string[]) => string[];
  /** The command line that runs another command in the container while it runs, with the container's capabilities, as `kubectl exec` does. */
  readonly inRunning: (command: readonly string[]) => string[];
  /** The container's first process, as the host numbers it, of a command that was started by `argv`. */
  readonly processId: (started: Proc) => Promise<number>;
  /** Runs a program of the host in the container's network. Never throws for an exit code. */
  readonly network: (argv: readonly string[]) => Promise<ExecResult>;
  /** Names in the bpf file system. */
  readonly pins: () => Promise<string[]>;
  /** Removes everything; no container runs any more. May be called twice. */
  readonly stop: () => Promise<void>;
}

/** A mount of the container. */
export interface Mount {
  readonly source: string;
  readonly target: string;
  readonly readOnly: boolean;
}

export function mountsOf({ volumeMounts = [] }: Container, sources: Sources): Mount[] {
  return volumeMounts.map(({ name, mountPath, readOnly }) => ({
    source: sources[name] ?? name,
    target: mountPath,
    readOnly: readOnly === true,
  }));
}
