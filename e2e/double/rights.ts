import { parseAllDocuments } from 'yaml';

/** What somebody wants to do. */
export interface Deed {
  readonly verb: 'get' | 'list' | 'watch' | 'create' | 'patch' | 'delete';
  /** Empty for the core group. */
  readonly group: string;
  readonly resource: string;
  readonly namespace: string | undefined;
  /** Of the object; of a list or watch that of its field selector `metadata.name`, as the real API server takes it. */
  readonly name: string | undefined;
}

/** Says whether a deed is allowed. */
export type Rights = (deed: Deed) => boolean;

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly verbs: readonly string[];
}

interface Document {
  readonly kind?: string;
  readonly metadata?: { readonly namespace?: string };
  readonly rules?: readonly Rule[];
}

/** The Roles and ClusterRoles of a manifest, as if all of them were bound to whoever asks; bindings are not looked at. */
export function rightsOf(manifest: string): Rights {
  const roles = parseAllDocuments(manifest).map((document) => document.toJS() as Document | null);
  return (deed) =>
    roles.some((role) => {
      if (role?.kind !== 'ClusterRole' && role?.kind !== 'Role') return false;
      if (role.kind === 'Role' && role.metadata?.namespace !== deed.namespace) return false;
      return (role.rules ?? []).some((rule) => allows(rule, deed));
    });
}

function allows(rule: Rule, { verb, group, resource, name }: Deed): boolean {
  const named = rule.resourceNames === undefined || (name !== undefined && rule.resourceNames.includes(name));
  return named && rule.apiGroups.includes(group) && rule.resources.includes(resource) && rule.verbs.includes(verb);
}
