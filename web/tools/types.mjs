// From the API's own document: its types, and the role that each operation needs.
import { readFileSync, writeFileSync } from 'node:fs';
import openapiTS, { astToString } from 'openapi-typescript';

const document = JSON.parse(readFileSync(new URL('../../proto/openapi.json', import.meta.url), 'utf8'));
const roles = {};
for (const [path, operations] of Object.entries(document.paths)) {
  for (const [method, operation] of Object.entries(operations)) {
    const role = operation['x-required-role'];
    // Below a vault without the vault's part; what belongs to the site with its whole path.
    if (['Reader', 'Operator', 'Contributor', 'Owner'].includes(role)) roles[`${method.toUpperCase()} ${path.replace('/api/v1/vaults/{vault}', '')}`] = role;
  }
}
// A field with a default may be left out of a request.
const types = astToString(await openapiTS(document, { defaultNonNullable: false }));
const head = '// Made by tools/types.mjs from proto/openapi.json.\n\n';
writeFileSync(new URL('../src/lib/schema.d.ts', import.meta.url), head + types);
writeFileSync(new URL('../src/lib/roles.json', import.meta.url), `${JSON.stringify(roles, null, 2)}\n`);
