/**
 * Makes a Unix socket reachable as a TCP port of the network namespace it is started in, until it is told to end. Arguments:
 * port, path.
 */
import { connect, createServer } from 'node:net';

const [port = '', path = ''] = process.argv.slice(2);
const server = createServer((incoming) => {
  const outgoing = connect(path);
  for (const [from, to] of [
    [incoming, outgoing],
    [outgoing, incoming],
  ] as const) {
    from.pipe(to);
    from.on('error', () => to.destroy());
    from.on('close', () => to.destroy());
  }
});
server.listen({ host: '127.0.0.1', port: Number(port) }, () => process.stdout.write('forwarding\n'));
