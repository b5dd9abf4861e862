import { gateExclusions } from '../agent/gate-exclusions.ts';
import type { Config } from '../config/config.ts';
import { loadConfig, type ConfigEnvironment } from '../config/load.ts';
import { FileError } from '../config/yaml-file.ts';
import { errorMessage } from '../util/errors.ts';
import { exclusionVerdict } from './exclusions.ts';
import { failure, ok, type Outcome } from './finding.ts';

/** The configuration file, as the sidecar reads it. */
export async function checkConfiguration(file: string, environment: ConfigEnvironment): Promise<Outcome<Config>> {
  try {
    const config = await loadConfig(file, environment);
    const excluded = gateExclusions(config.featureGates).map((exclusion) => exclusionVerdict(exclusion, file));
    return { verdicts: [ok(`${file}, node ${config.nodeName}`), ...excluded], value: config };
  } catch (error) {
    return failure({
      what: fileProblem(error),
      where: file,
      action: 'correct it; docs/configuration.md has every key (another file: --config)',
    });
  }
}

/** Every issue of a file, in one line. */
export function fileProblem(error: unknown): string {
  return error instanceof FileError ? error.message.split('\n').join('; ') : errorMessage(error);
}
