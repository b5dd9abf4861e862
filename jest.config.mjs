// One configuration for every suite; `--selectProjects unit prog lab` chooses among them.
const base = {
  testEnvironment: 'node',
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '^.+\\.ts$': ['ts-jest', { useESM: true, diagnostics: false }] },
};

export default {
  projects: [
    { ...base, displayName: 'unit', testMatch: ['<rootDir>/plugin/test/unit/**/*.test.ts'] },
    { ...base, displayName: 'prog', testMatch: ['<rootDir>/plugin/test/prog/**/*.test.ts'] },
    { ...base, displayName: 'lab', testMatch: ['<rootDir>/e2e/specs/**/*.spec.ts'] },
    { ...base, displayName: 'long', testMatch: ['<rootDir>/e2e/specs-long/**/*.spec.ts'] },
    { ...base, displayName: 'vm', testMatch: ['<rootDir>/e2e/specs-vm/**/*.spec.ts'] },
  ],
};
