import { xmasq } from '../../gen/xmasq.js';
import { reasonName } from '../../grpc/reasons.ts';
import { withClient, type CommandSpec } from '../context.ts';
import { ExitCode } from '../exit.ts';
import { print } from '../output.ts';
import { renderFields, renderTable } from '../table.ts';
import { duration, printable } from '../text.ts';
import { enumWord, exclusionText } from '../words.ts';

const v1 = xmasq.v1;

interface StatusOptions {
  /** Show counters that are 0, too. */
  readonly all?: boolean;
}

export const statusCommand: CommandSpec<StatusOptions> = {
  name: 'status',
  declare: (command) =>
    command
      .description('Whether XMasq works on this node, and what to do if not. Exit code 4: degraded.')
      .option('-a, --all', 'show counters that are 0, too'),
  run: (context, { all = false }) =>
    withClient(context, async (client) => {
      const message = await client.call('status', new v1.StatusRequest());
      await print(context.io, context.output, {
        type: v1.StatusResponse,
        message,
        table: (status) => statusText(status, all),
      });
      const degraded = message.state === v1.NodeState.NODE_STATE_DEGRADED || message.degradations.length > 0;
      return degraded ? ExitCode.DEGRADED : ExitCode.OK;
    }),
};

function statusText(status: xmasq.v1.StatusResponse, all: boolean): string {
  const nonZero = (value: number | null | undefined): boolean => all || (value ?? 0) !== 0;
  const sections = [
    summary(status),
    degradations(status),
    exclusions(status),
    renderTable(
      [{ name: 'MAP' }, { name: 'ENTRIES', right: true }, { name: 'CAPACITY', right: true }],
      status.maps.map(({ name, entries, capacity }) => [name ?? '', String(entries ?? 0), String(capacity ?? 0)]),
    ),
    renderTable(
      [{ name: 'DECISION' }, { name: 'COUNT', right: true }],
      status.counters
        .filter(({ value }) => nonZero(value))
        .map(({ name, value }) => [(name ?? '').replaceAll('_', '-'), String(value ?? 0)]),
    ),
    renderTable(
      [{ name: 'SLOW BECAUSE' }, { name: 'PACKETS', right: true }],
      status.reasons
        .filter(({ reason, packets }) => (reason ?? 0) !== v1.Reason.REASON_NONE && nonZero(packets))
        .toSorted((a, b) => (b.packets ?? 0) - (a.packets ?? 0))
        .map(({ reason, packets }) => [reasonName(reason ?? 0), String(packets ?? 0)]),
    ),
  ];
  return sections.filter((section) => section !== '').join('\n');
}

function summary(status: xmasq.v1.StatusResponse): string {
  const { uplinks, podEvents } = status;
  const synced = podEvents?.synced === true ? 'snapshot in force, no stream' : 'no snapshot yet';
  return renderFields([
    ['node', status.nodeName],
    ['state', enumWord(v1.NodeState, 'NODE_STATE_', status.state)],
    ['version', `${status.version}, protocol ${status.protocolVersion}`],
    ['up', duration(status.uptimeMs)],
    ['kernel', status.kernelRelease],
    ['admission', enumWord(v1.AdmissionMode, 'ADMISSION_MODE_', status.admissionMode)],
    ['attach', enumWord(v1.AttachMode, 'ATTACH_MODE_', status.attachMode)],
    ...(uplinks.length === 0 ? [{ device: '' }] : uplinks).map((uplink): [string, string] => [
      'uplink',
      uplinkText(uplink),
    ]),
    ['pod events', podEvents?.connected === true ? 'connected' : synced],
    ...status.sources.map((source): [string, string] => [source.name ?? '', sourceText(source)]),
    ['endpoints', String(status.endpoints)],
    ['peers', `${status.peers}, alive ${status.peersAlive}`],
    ['flows', String(status.flows)],
  ]);
}

function uplinkText({ device, ifindex, address, mtu }: xmasq.v1.Uplink.$Properties): string {
  return device ? `${device} (${ifindex ?? 0}), ${address ?? ''}, MTU ${mtu ?? 0}` : 'none';
}

function sourceText({ connected, synced, detail }: xmasq.v1.Source.$Properties): string {
  const state =
    connected === true ? 'connected' : synced === true ? 'not connected, last state in force' : 'not connected';
  return printable(`${state}; ${detail ?? ''}`);
}

function exclusions({ exclusions: list }: xmasq.v1.StatusResponse): string {
  return list
    .map((exclusion) => {
      const scope = enumWord(v1.ExclusionScope, 'EXCLUSION_SCOPE_', exclusion.scope ?? 0);
      return `${printable(`excluded (${scope}): ${exclusionText(exclusion)}`)}\n`;
    })
    .join('');
}

function degradations({ degradations: list }: xmasq.v1.StatusResponse): string {
  return list
    .map(({ what, where, action }) => {
      const lines = [`! ${what ?? ''}`, `  where: ${where ?? ''}`, `  to do: ${action ?? ''}`];
      return lines.map((line) => `${printable(line)}\n`).join('');
    })
    .join('');
}
