// Checks what readers rely on and compilers do not see: that links between our pages lead somewhere, and that every
// exported symbol says what it is for.
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const SKIPPED = new Set(['node_modules', 'dist', 'build', 'prebuilds', 'results', '.git']);

const findings = [...filesBelow(root, '.md').flatMap(checkLinks), ...sources().flatMap(checkComments)];
for (const finding of findings) process.stderr.write(`${finding}\n`);
process.exitCode = findings.length === 0 ? 0 : 1;

function filesBelow(directory, extension) {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    if (SKIPPED.has(entry.name)) return [];
    const file = path.join(directory, entry.name);
    if (entry.isDirectory()) return filesBelow(file, extension);
    return entry.name.endsWith(extension) ? [file] : [];
  });
}

function checkLinks(page) {
  const text = withoutCode(readFileSync(page, 'utf8'));
  const links = [...text.matchAll(/\[[^\]]*\]\(([^)\s]+)(?: "[^"]*")?\)/g), ...text.matchAll(/^\[[^\]]+\]: (\S+)/gm)];
  return links.flatMap(([, link]) => {
    if (/^[a-z][a-z0-9+.-]*:/.test(link)) return [];
    const [file, anchor] = link.split('#');
    const target = file === '' ? page : path.resolve(path.dirname(page), decodeURIComponent(file));
    const where = path.relative(root, page);
    if (!existsSync(target)) return [`${where}: the link ${link} leads nowhere`];
    if (anchor === undefined || !target.endsWith('.md') || statSync(target).isDirectory()) return [];
    return anchors(target).has(anchor) ? [] : [`${where}: ${path.relative(root, target)} has no heading #${anchor}`];
  });
}

/** The names that a forge gives to the headings of a page. */
function anchors(page) {
  const seen = new Map();
  const headings = withoutCode(readFileSync(page, 'utf8'), { keepInline: true }).matchAll(/^#{1,6} (.*)$/gm);
  return new Set(
    [...headings].map(([, heading]) => {
      const plain = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1');
      const slug = plain
        .trim()
        .toLowerCase()
        .replace(/[^\p{L}\p{N}_ -]/gu, '')
        .replaceAll(' ', '-');
      const count = seen.get(slug) ?? 0;
      seen.set(slug, count + 1);
      return count === 0 ? slug : `${slug}-${count}`;
    }),
  );
}

function withoutCode(text, { keepInline = false } = {}) {
  const plain = text.replace(/^(```|~~~)[\s\S]*?^\1/gm, '');
  return keepInline ? plain : plain.replace(/`[^`\n]*`/g, '');
}

function sources() {
  return ['src', 'bench', 'test/support'].flatMap((directory) => filesBelow(path.join(root, directory), '.ts'));
}

function checkComments(file) {
  const source = ts.createSourceFile(file, readFileSync(file, 'utf8'), ts.ScriptTarget.Latest, true);
  return source.statements.flatMap((statement) => {
    const isExported = statement.modifiers?.some((modifier) => modifier.kind === ts.SyntaxKind.ExportKeyword) === true;
    if (!isExported || isOverload(statement, source) || isOfGroup(statement, source)) return [];
    if (ts.getJSDocCommentsAndTags(statement).length > 0) return [];
    const { line } = source.getLineAndCharacterOfPosition(statement.getStart());
    const names = ts.isVariableStatement(statement)
      ? statement.declarationList.declarations.map((declaration) => declaration.name.getText())
      : [statement.name?.getText() ?? '?'];
    return [`${path.relative(root, file)}:${line + 1}: ${names.join(', ')} is exported without a TSDoc comment`];
  });
}

/** Whether the same function was declared just before, where the comment stands. */
function isOverload(statement, source) {
  if (!ts.isFunctionDeclaration(statement)) return false;
  const before = source.statements[source.statements.indexOf(statement) - 1];
  return before !== undefined && ts.isFunctionDeclaration(before) && before.name?.text === statement.name?.text;
}

/** Whether a constant follows another without an empty line between: one comment serves the group. */
function isOfGroup(statement, source) {
  const before = source.statements[source.statements.indexOf(statement) - 1];
  if (before === undefined || !ts.isVariableStatement(statement) || !ts.isVariableStatement(before)) return false;
  return !/\n\s*\n/.test(statement.getFullText());
}
