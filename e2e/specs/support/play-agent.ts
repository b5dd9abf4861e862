/**
 * Plays antrea-agent's FlowExporter in the network namespace it is started in: sends the records of one connection every
 * second until it is told to end. Arguments: port, directory of certificates, the connection as JSON.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { FlowAgent } from '../../flowgen/agent.ts';
import { record, request, type Connection } from '../../flowgen/records.ts';

const [port = '', directory = '', connection = ''] = process.argv.slice(2);
const read = (name: string): string => readFileSync(join(directory, name), 'utf8');
const tls = { ca: read('ca.crt'), cert: read('client.crt'), key: read('client.key') };
const stream = new FlowAgent({ port: Number(port), tls }).open();
const start = Date.now();
for (let round = 1; round <= 600; round++) {
  const known = JSON.parse(connection) as Connection;
  const packets = [10 * round, 10] as const;
  if (!(await stream.send(request(record({ ...known, start, end: Date.now(), packets }))))) break;
  if (round === 1) process.stdout.write('sent\n');
  await sleep(1000);
}
process.stdout.write(`${JSON.stringify(await stream.ended)}\n`);
