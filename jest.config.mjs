import { nativeSpecsOn } from './e2e/vm/jest/native-specs.ts';

// One configuration for every suite; scripts/jest.sh runs one of them: unit, prog, mutants, alone, lab, image, matrix,
// vm, ovs, long or kind.
const base = {
  testEnvironment: 'node',
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '^.+\\.ts$': ['ts-jest', { useESM: true, diagnostics: false }] },
  // Not the whole checkout: .cache may hold a Debian tree.
  roots: ['<rootDir>/plugin', '<rootDir>/e2e'],
};

// Specs of the lab that run alone: their limits leave no room for a neighbour; of lab/lab a neighbour would do what it looks at.
const alone = ['lab/lab', 'specs/fast-start', 'specs/kubernetes', 'specs/ovsdb'];

// Real packets and real time: see the file.
const realTime = { ...base, setupFilesAfterEnv: ['<rootDir>/scripts/retry-once.mjs'] };

export default {
  // The limit of a spec (and of each hook) that names none itself; scripts/jest.sh limits whole suites.
  testTimeout: 60_000,
  maxWorkers: 2,
  cacheDirectory: '<rootDir>/.cache/jest',
  reporters: ['default', '<rootDir>/scripts/slowest-reporter.mjs'],
  projects: [
    {
      ...base,
      displayName: 'unit',
      testMatch: ['<rootDir>/plugin/test/unit/**/*.test.ts', '<rootDir>/e2e/lab/**/*.test.ts'],
    },
    {
      ...realTime,
      displayName: 'prog',
      testMatch: ['<rootDir>/plugin/test/prog/**/*.test.ts'],
      testPathIgnorePatterns: ['mutations\\.test\\.ts$'],
    },
    // Each takes a guard out of the programs and compiles them: too long for every run.
    { ...realTime, displayName: 'mutants', testMatch: ['<rootDir>/plugin/test/prog/mutations.test.ts'] },
    { ...realTime, displayName: 'alone', testMatch: alone.map((name) => `<rootDir>/e2e/${name}.spec.ts`) },
    {
      ...realTime,
      displayName: 'lab',
      testMatch: ['<rootDir>/e2e/specs/**/*.spec.ts', '<rootDir>/e2e/lab/**/*.spec.ts'],
      testPathIgnorePatterns: alone.map((name) => `/e2e/${name}\\.spec\\.ts$`),
    },
    // Of the image that `make image` made.
    { ...realTime, displayName: 'image', testMatch: ['<rootDir>/e2e/specs-image/**/*.spec.ts'] },
    { ...realTime, displayName: 'matrix', testMatch: ['<rootDir>/e2e/matrix/**/*.spec.ts'] },
    { ...realTime, displayName: 'long', testMatch: ['<rootDir>/e2e/specs-long/**/*.spec.ts'] },
    {
      ...base,
      displayName: 'ovs',
      testRunner: '<rootDir>/e2e/vm/jest/runner.mjs',
      // The lab's specs, on Open vSwitch.
      moduleNameMapper: { '/lab/native/native\\.ts$': '<rootDir>/e2e/lab/ovs/ovs.ts' },
      testMatch: ['<rootDir>/e2e/specs-ovs/**/*.spec.ts', ...nativeSpecsOn(process.env.KERNEL || '6.12')],
    },
    { ...realTime, displayName: 'vm', testMatch: ['<rootDir>/e2e/specs-vm/**/*.spec.ts'] },
    // Needs a cluster: e2e/kind/test.sh makes it. No part of `make test`.
    { ...realTime, displayName: 'kind', testMatch: ['<rootDir>/e2e/specs-kind/**/*.spec.ts'] },
  ],
};
