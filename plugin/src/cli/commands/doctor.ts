import { DEFAULT_CONFIG_FILE } from '../../config/load.ts';
import type { CommandSpec } from '../context.ts';
import { countOf, examineNode, reportJson, reportText, type ExamineOptions } from '../examine.ts';
import { ExitCode } from '../exit.ts';
import { printPlain } from '../output.ts';

export const doctorCommand: CommandSpec<ExamineOptions> = {
  name: 'doctor',
  declare: (command) =>
    command
      .description('Why XMasq does not work on this node, or would not, with a sidecar or without. Changes nothing.')
      .option('--config <file>', `configuration of xmasq-agent (default: ${DEFAULT_CONFIG_FILE})`)
      .option('--bpf-dir <directory>', 'where xmasq.bpf.o and probe.bpf.o are'),
  run: async (context, options) => {
    const { findings } = await examineNode(context, options);
    await printPlain(
      context.io,
      context.output,
      () => reportJson(findings),
      () => reportText(findings),
    );
    return countOf(findings, 'failed') > 0 ? ExitCode.DEGRADED : ExitCode.OK;
  },
};
