import type { VersionInfo } from '../grpc/backend.ts';
import { LAYOUT_VERSION, PROTOCOL_VERSION } from '../dataplane/layout.ts';

/** As in package.json; a test compares. */
export const VERSION = '0.1.0';

/** This build. XMASQ_COMMIT is set by whoever packages it. */
export function versionInfo(environment: { readonly XMASQ_COMMIT?: string | undefined } = process.env): VersionInfo {
  return {
    version: VERSION,
    commit: environment.XMASQ_COMMIT ?? '',
    protocolVersion: PROTOCOL_VERSION,
    layoutVersion: LAYOUT_VERSION,
  };
}
