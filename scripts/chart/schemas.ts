/**
 * Writes the JSON schemas by which kubeconform judges the chart's objects, strict ones: a field that the API does not know
 * is an error, not ignored.
 *
 *     node scripts/chart/schemas.ts OUT SWAGGER CRD...
 *
 * SWAGGER is the OpenAPI document (version 2) of an API server, CRD a CustomResourceDefinition in YAML.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

/** A JSON schema, or a part of one. */
type Schema = Readonly<Record<string, unknown>>;

interface Swagger {
  readonly definitions: Readonly<Record<string, Schema>>;
}

interface GroupVersionKind {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
}

interface Crd {
  readonly spec: {
    readonly group: string;
    readonly names: { readonly kind: string };
    readonly versions: readonly { readonly name: string; readonly schema: { readonly openAPIV3Schema: Schema } }[];
  };
}

/** The API takes numbers, too, which the document does not say. */
const QUANTITY = 'io.k8s.apimachinery.pkg.api.resource.Quantity';

function isSchema(value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The same without unknown fields, and with what OpenAPI says in its own ways. */
function strict(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(strict);
  if (!isSchema(value)) return value;
  const schema: Record<string, unknown> = Object.fromEntries(
    Object.entries(value).map(([key, part]) => [key, strict(part)]),
  );
  const open = 'additionalProperties' in schema || schema['x-kubernetes-preserve-unknown-fields'] === true;
  if (isSchema(schema['properties']) && !open) schema['additionalProperties'] = false;
  if (schema['format'] === 'int-or-string' || schema['x-kubernetes-int-or-string'] === true) {
    schema['type'] = ['integer', 'string'];
    delete schema['format'];
  }
  return schema;
}

/** As kubeconform's template `{{ .ResourceKind }}{{ .KindSuffix }}.json` calls it. */
function fileName({ group, version, kind }: GroupVersionKind): string {
  return [kind.toLowerCase(), ...(group === '' ? [] : [group.split('.')[0]]), version].join('-') + '.json';
}

const [out, swaggerFile, ...crdFiles] = process.argv.slice(2);
if (out === undefined || swaggerFile === undefined) {
  process.stderr.write('usage: schemas.ts OUT SWAGGER CRD...\n');
  process.exit(2);
}
mkdirSync(out, { recursive: true });

const swagger = JSON.parse(readFileSync(swaggerFile, 'utf8')) as Swagger;
const definitions = strict(swagger.definitions) as Record<string, Schema>;
definitions[QUANTITY] = { type: ['string', 'number'] };
writeFileSync(join(out, 'definitions.json'), JSON.stringify({ definitions }));
for (const [name, definition] of Object.entries(swagger.definitions)) {
  const kinds = (definition['x-kubernetes-group-version-kind'] ?? []) as readonly GroupVersionKind[];
  // Those with several are common to all groups, as DeleteOptions.
  const [only, ...more] = kinds;
  if (only === undefined || more.length > 0) continue;
  writeFileSync(join(out, fileName(only)), JSON.stringify({ $ref: `definitions.json#/definitions/${name}` }));
}

for (const file of crdFiles) {
  const { group, names, versions } = (parse(readFileSync(file, 'utf8')) as Crd).spec;
  for (const { name, schema } of versions) {
    const path = join(out, fileName({ group, version: name, kind: names.kind }));
    // Of metadata a CRD says only that it is an object.
    const whole = { ...schema.openAPIV3Schema, properties: { ...(schema.openAPIV3Schema['properties'] as Schema) } };
    const withMetadata = strict(whole) as { properties: Record<string, unknown> };
    withMetadata.properties['metadata'] = {
      $ref: 'definitions.json#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta',
    };
    writeFileSync(path, JSON.stringify(withMetadata));
  }
}
