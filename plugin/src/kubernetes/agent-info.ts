import type { KubeObject } from './objects.ts';

/** What is kept of an AntreaAgentInfo: not the times, which change every minute. */
export interface AgentInfo {
  /** Antrea's version. */
  readonly version: string;
  /** By type, e.g. OpenflowConnectionUp; true: status is True. */
  readonly conditions: Readonly<Record<string, boolean>>;
}

interface AgentInfoObject extends KubeObject {
  readonly version?: string;
  readonly agentConditions?: readonly { readonly type: string; readonly status: string }[];
}

export function agentInfoView({ version = '', agentConditions = [] }: AgentInfoObject): AgentInfo {
  return {
    version,
    conditions: Object.fromEntries(agentConditions.map(({ type, status }) => [type, status === 'True'])),
  };
}
