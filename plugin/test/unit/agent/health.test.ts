import { expect, test } from '@jest/globals';
import { healthOf } from '../../../src/agent/health.ts';
import type { NodeState, SourceInfo } from '../../../src/grpc/backend.ts';

const source = (name: string, synced: boolean, required = true): SourceInfo => ({
  name,
  connected: synced,
  synced,
  required,
  detail: '',
});
const trouble = { what: 'cannot follow /api/v1/pods: 403 forbidden', where: 'Kubernetes API', action: 'grant it' };

test.each<[NodeState, boolean]>([
  ['starting', false],
  ['ready', true],
  ['degraded', true],
  ['draining', false],
  ['drained', false],
])('%s: %p', (state, ready) => {
  expect(healthOf(state, [source('ovsdb', true)], [])).toEqual({ ready, lines: [state] });
});

test('a source that is needed and has told nothing yet makes it not ready, one that is not needed does not', () => {
  const sources = [source('kubernetes', false), source('flow export', false, false)];
  expect(healthOf('degraded', sources, [trouble])).toEqual({
    ready: false,
    lines: [
      'degraded',
      'nothing is known yet from the source kubernetes',
      'cannot follow /api/v1/pods: 403 forbidden (Kubernetes API): grant it',
    ],
  });
});

test('the troubles that are told are limited', () => {
  expect(healthOf('degraded', [], new Array<typeof trouble>(99).fill(trouble)).lines).toHaveLength(21);
});
