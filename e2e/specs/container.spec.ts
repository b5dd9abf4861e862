/**
 * The sidecar starts, and cleans up, as the chart's container: with its command, configuration, capabilities and mounts, a
 * root file system that is read-only, and beside a database of Open vSwitch that it sees read-only. There is no image here, no
 * runtime with its seccomp and AppArmor profiles (e2e/specs-image has both), and no API server.
 */
import { chartContainer, containerSpecs } from './support/container.ts';
import { namespaceRuntime } from './support/namespace-runtime.ts';

containerSpecs(chartContainer(namespaceRuntime));
