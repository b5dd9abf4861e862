/** Open vSwitch's database as a source: everything that others need of it. */
export { OvsdbSource, type OvsdbInfo, type OvsdbSourceOptions } from './source.ts';
export { OvsdbClient, type ClientCounts, type ClientOptions, type DatabaseListener } from './client.ts';
export { UNKNOWN_STATE, type OvsdbGateway, type OvsdbState, type OvsdbTunnel, type VlanPod } from './state.ts';
export { SKIP_CAUSES, type SkipCause } from './pod-ports.ts';
export { exclusionsOf } from './exclusions.ts';
