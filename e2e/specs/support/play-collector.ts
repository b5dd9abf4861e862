/**
 * Plays a FlowAggregator in the network namespace it is started in, until it is told to end: prints each record as a line of
 * JSON. Arguments: port, directory of certificates.
 */
import { FlowExportServer } from '../../../plugin/src/flowexport/server.ts';
import { IssuedCertificates } from '../../../plugin/src/flowexport/issued-certificates.ts';

const [port = '', directory = ''] = process.argv.slice(2);
const tls = await IssuedCertificates.open({ directory, onProblem: () => undefined });
await FlowExportServer.start({
  port: Number(port),
  tls,
  onFlow: ({ sourcePort, forward, reverse, names }) => {
    process.stdout.write(`${JSON.stringify({ sourcePort, forward, reverse, service: names.service?.name })}\n`);
  },
});
process.stdout.write('collecting\n');
