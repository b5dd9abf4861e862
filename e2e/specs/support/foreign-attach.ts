/**
 * Attaches the foreign program before all others in the network namespace it is started in, and stays until it is told to
 * end, which detaches it. Arguments: object file, ifindex, ingress or egress.
 */
import { attachTcx } from '../../../plugin/src/bpf/link.ts';
import { BpfObject } from '../../../plugin/src/bpf/object.ts';

const [objectPath = '', ifindex = '', direction = ''] = process.argv.slice(2);
if (direction !== 'ingress' && direction !== 'egress') throw new Error(`direction ${direction}: ingress or egress`);
const object = BpfObject.open(objectPath);
object.load();
attachTcx({ progFd: object.program('foreign_ok').fd, ifindex: Number(ifindex), direction, first: true });
process.stdout.write('attached\n');
setInterval(() => undefined, 60_000);
