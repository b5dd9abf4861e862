// Jest's test runner of the suite `ovs`: on a kernel with Open vSwitch's datapath the specs run here, as with any other suite;
// without, each file runs in a micro-VM of its own.
import path from 'node:path';
import circus from 'jest-circus/runner';
import { hasDatapath } from '../../lab/ovs/ovs.ts';
import { runRemotely } from './remote.ts';

export default async function runTest(globalConfig, config, environment, runtime, testPath, ...rest) {
  if (process.env.XMASQ_VM !== '1' && (await hasDatapath())) {
    return circus(globalConfig, config, environment, runtime, testPath, ...rest);
  }
  return runRemotely({
    specFile: testPath,
    lab: path.join(config.rootDir, 'e2e/lab/ovs/ovs.ts'),
    namePattern: globalConfig.testNamePattern || undefined,
  });
}
