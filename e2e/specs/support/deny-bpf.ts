/**
 * Runs a command under a seccomp filter that refuses bpf(2) with EPERM, as the profiles of older container runtimes do to
 * whoever lacks CAP_SYS_ADMIN. Arguments: the command.
 */
import { spawnSync } from 'node:child_process';
import koffi from 'koffi';

/* <linux/prctl.h>, <linux/seccomp.h>, <linux/audit.h>, <asm/unistd_64.h> */
const PR_SET_SECCOMP = 22;
const SECCOMP_MODE_FILTER = 2;
const AUDIT_ARCH_X86_64 = 0xc000003e;
const NR_BPF = 321;
const RET_ALLOW = 0x7fff0000;
const RET_ERRNO_EPERM = 0x00050001;

/** struct sock_filter of classic BPF. */
function instruction(code: number, ifTrue: number, ifFalse: number, k: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt16LE(code, 0);
  bytes.writeUInt8(ifTrue, 2);
  bytes.writeUInt8(ifFalse, 3);
  bytes.writeUInt32LE(k, 4);
  return bytes;
}

const LOAD_WORD = 0x20;
const JUMP_EQUAL = 0x15;
const RETURN = 0x06;
/** struct seccomp_data: nr at 0, arch at 4. */
const filter = Buffer.concat([
  instruction(LOAD_WORD, 0, 0, 4),
  instruction(JUMP_EQUAL, 0, 3, AUDIT_ARCH_X86_64),
  instruction(LOAD_WORD, 0, 0, 0),
  instruction(JUMP_EQUAL, 0, 1, NR_BPF),
  instruction(RETURN, 0, 0, RET_ERRNO_EPERM),
  instruction(RETURN, 0, 0, RET_ALLOW),
]);
/** struct sock_fprog. */
const program = Buffer.alloc(16);
program.writeUInt16LE(filter.length / 8, 0);
program.writeBigUInt64LE(koffi.address(filter), 8);

const prctl = koffi.load(null).func('prctl', 'int', ['int', 'ulong', 'void *']) as (
  option: number,
  mode: number,
  program: Buffer,
) => number;
if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program) !== 0) throw new Error(`prctl: errno ${koffi.errno()}`);
const [command = '', ...args] = process.argv.slice(2);
process.exitCode = spawnSync(command, args, { stdio: 'inherit' }).status ?? 1;
