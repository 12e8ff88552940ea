// Which file may import which, as an eslint rule. Imports of types count: whoever reads a file has to know those as well.
//
// - Every file and folder of src stands in a row and imports what stands in the rows above its own. Within a row it
//   imports only the neighbours that NEIGHBOURS lists, with the reason.
// - src imports neither tests nor benchmarks.
// - Nowhere, in src, bench and test, do files import each other in a circle.
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import ts from 'typescript';

/** Names in src, from what knows nothing to what knows everything. */
export const ROWS = [
  ['errors.ts', 'clock.ts', 'json.ts', 'printable.ts', 'log-level.ts', 'process-guard.ts'],
  ['ip', 'log.ts', 'alarm.ts', 'rate-limited-log.ts', 'deadline.ts', 'append.ts', 'gatherer.ts', 'list-difference.ts'],
  ['sys', 'coalescing-task.ts', 'guard.ts', 'pace.ts', 'turns.ts'],
  ['netlink', 'config', 'lease', 'etcd'],
  ['dataplane', 'reconcile', 'underlay', 'firewall', 'container', 'extension'],
  ['backend'],
  ['systemd', 'reach', 'docker', 'observe'],
  ['daemon', 'ctl'],
  ['daemon.ts'],
  ['bin'],
];

/** The imports within a row: who, whom, and why. */
export const NEIGHBOURS = [
  ['lease', 'config', 'a lease is a part of the configured network'],
  ['etcd', 'lease', 'etcd is one of the places where leases can be kept; nothing but composition knows that it is'],
  ['etcd', 'config', 'where etcd is, and how to ask it, is configured'],
  ['reconcile', 'dataplane', 'a tunnel is a part of the desired state'],
  ['docker', 'systemd', 'Docker is a service of systemd'],
  ['observe', 'reach', 'the status tells which peers answer'],
];

const ROOTS = ['src', 'bench', 'test'];

/** Which file imports which, with paths from the root of the repository and types included. */
export function readImports(root) {
  const files = ROOTS.flatMap((folder) =>
    readdirSync(path.join(root, folder), { recursive: true })
      .filter((name) => name.endsWith('.ts'))
      .map((name) => path.join(folder, name)),
  );
  return new Map(
    files.map((file) => {
      const { importedFiles } = ts.preProcessFile(readFileSync(path.join(root, file), 'utf8'), true, true);
      return [file, new Set(importedFiles.flatMap(({ fileName }) => resolve(file, fileName) ?? []))];
    }),
  );
}

/** The file that a specifier names; undefined for a package. */
function resolve(file, specifier) {
  return specifier.startsWith('.') ? path.join(path.dirname(file), specifier).replace(/\.js$/, '.ts') : undefined;
}

/** Why a file must not import another; undefined if it may. */
export function faultOf(imports, file, imported) {
  return directionFault(file, imported) ?? circleFault(imports, file, imported);
}

function directionFault(file, imported) {
  const [[root, from], [importedRoot, to]] = [file.split(path.sep), imported.split(path.sep)];
  if (root !== 'src') return undefined;
  if (importedRoot !== 'src') return 'the program does not depend on its tests and benchmarks';
  if (from === to) return undefined;
  const [row, otherRow] = [from, to].map((name) => ROWS.findIndex((names) => names.includes(name)));
  for (const [name, found] of Object.entries({ [from]: row, [to]: otherRow })) {
    if (found === -1) return `src/${name} stands in no row of .ci/imports.mjs`;
  }
  if (row > otherRow) return undefined;
  if (row < otherRow) return `src/${to} stands below src/${from}; the rows are in .ci/imports.mjs`;
  if (NEIGHBOURS.some(([who, whom]) => who === from && whom === to)) return undefined;
  return `src/${to} stands in the same row as src/${from} and is not listed with a reason in .ci/imports.mjs`;
}

function circleFault(imports, file, imported) {
  const way = [...wayTo(imports, imported, file)];
  return way.length === 0 ? undefined : `a circle of imports: ${[file, ...way].join(' → ')}`;
}

/** The shortest way along imports, both ends included; empty if there is none. */
function wayTo(imports, start, end) {
  const cameFrom = new Map([[start, undefined]]);
  for (const file of cameFrom.keys()) {
    if (file === end) {
      const way = [];
      for (let each = end; each !== undefined; each = cameFrom.get(each)) way.unshift(each);
      return way;
    }
    for (const next of imports.get(file) ?? []) if (!cameFrom.has(next)) cameFrom.set(next, file);
  }
  return [];
}

/** Entries of {@link NEIGHBOURS} that no import needs any more. */
export function unusedNeighbours(imports) {
  const isUsed = ([who, whom]) =>
    [...imports].some(
      ([file, targets]) =>
        file.startsWith(path.join('src', who)) &&
        [...targets].some((target) => target.startsWith(path.join('src', whom))),
    );
  return NEIGHBOURS.filter((entry) => !isUsed(entry)).map(([who, whom]) => `${who} imports ${whom}`);
}

/** The rule, for the repository at a root. */
export function importRule(root) {
  let imports;
  return {
    meta: { type: 'problem', schema: [] },
    create(context) {
      imports ??= readImports(root);
      const file = path.relative(root, context.filename);
      const check = ({ source }) => {
        const imported = typeof source?.value === 'string' ? resolve(file, source.value) : undefined;
        const fault = imported === undefined ? undefined : faultOf(imports, file, imported);
        if (fault !== undefined) context.report({ node: source, message: fault });
      };
      return {
        ImportDeclaration: check,
        ImportExpression: check,
        ExportNamedDeclaration: check,
        ExportAllDeclaration: check,
        TSImportType: check,
      };
    },
  };
}
