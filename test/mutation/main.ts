// Changes the program in one place at a time and says which changes no test notices.
// What it is told on the command line: .ci/usage/test-mutation.txt.
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { onExit } from '../support/cleanup.js';
import { Compiler } from './compiler.js';
import { type Explanation, findStale, readExplanations } from './explanations.js';
import { type Mutant, mutate } from './mutants.js';
import { mutateNative } from './native-mutants.js';
import { NativeSession } from './native-session.js';
import { Session } from './session.js';
import { type Result, Tally } from './tally.js';
import { TARGETS, type Target } from './targets.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
const DAY_MS = 86_400_000;

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    seed: { type: 'string', default: String(Math.floor(Date.now() / DAY_MS)) },
    file: { type: 'string', default: '' },
  },
});

/** Files that are mutated against the same suites. */
interface Subject {
  readonly files: readonly { readonly file: string; readonly source: string }[];
  readonly tests: readonly string[];
  readonly isNative: boolean;
}

const [minutes, seed] = [Number(values.minutes), Number(values.seed)];
if (minutes > 0 && Number.isSafeInteger(seed) && seed >= 0) {
  process.exitCode = await main(minutes, seed, values.file);
} else {
  process.stderr.write(readFileSync(path.join(ROOT, '.ci/usage/test-mutation.txt')));
  process.exitCode = 2;
}

async function main(minutes: number, seed: number, wanted: string): Promise<number> {
  // `performance.now()` begins with the process.
  const endMs = minutes * 60_000;
  const explanations = readExplanations();
  const stale = findStale(explanations, mutantsOf);
  for (const line of stale) process.stderr.write(`${line}\n`);
  const subjects = TARGETS.map((target) => subjectOf(target, wanted)).filter(({ files }) => files.length > 0);
  if (subjects.length === 0) throw new Error(`no file that is mutated has "${wanted}" in its name: see test/mutation`);

  const scratch = mkdtempSync(path.join(tmpdir(), 'tsflannel-mutation-'));
  const remove = (): void => {
    rmSync(scratch, { recursive: true, force: true });
  };
  onExit(remove);
  copyTree(scratch);

  const compiler = new Compiler(ROOT);
  const results: Result[] = [];
  let rest = lengthOf(subjects);
  for (const subject of rotated(subjects, seed)) {
    // As long a share as the files are; what they leave of it is the others'.
    const nowMs = performance.now();
    const shareMs = (Math.max(0, endMs - nowMs) * lengthOf([subject])) / rest;
    rest -= lengthOf([subject]);
    results.push(...(await trySubject(scratch, subject, explanations, compiler, seed, nowMs + shareMs)));
  }
  remove();
  report(results, seed);
  return stale.length === 0 && results.every(({ survivors }) => survivors.length === 0) ? 0 : 1;
}

async function trySubject(
  scratch: string,
  { files, tests, isNative }: Subject,
  explanations: readonly Explanation[],
  compiler: Compiler,
  seed: number,
  untilMs: number,
): Promise<readonly Result[]> {
  const tallies = files.map(({ file }) => new Tally(file, explanations));
  if (isNative) {
    for (const [index, { file, source }] of files.entries()) {
      const tally = tallies[index];
      const session = new NativeSession(scratch, file, source, tests);
      const mutants = mutateNative(source);
      tally?.expect(mutants.length);
      for (const mutant of shuffled(mutants, seed)) {
        if (performance.now() >= untilMs) break;
        await nextTurn(); // building and testing hold up everything, signals included
        tally?.note(mutant, session.try(mutant));
      }
    }
  } else {
    // All of them at once, so that the tests have to be explored once only.
    let firstId = 0;
    const all = files.flatMap(({ file, source }, index) => {
      const { mutants, instrumented, sourceOf } = mutate(file, source, firstId);
      firstId += mutants.length;
      writeFileSync(path.join(scratch, file), instrumented);
      tallies[index]?.expect(mutants.length);
      return mutants.map((mutant) => ({ mutant, file, sourceOf, tally: tallies[index] }));
    });
    const session = new Session(scratch, tests, untilMs);
    try {
      for (const { mutant, file, sourceOf, tally } of shuffled(all, seed)) {
        const fate = await session.try(mutant.id);
        if (fate === undefined) break;
        // The compiler takes longer than most tests, so that only those are shown to it that no test notices.
        const isValid = fate === 'killed' || compiler.doesCompile(file, sourceOf(mutant));
        tally?.note(mutant, isValid ? fate : undefined);
      }
      await session.check();
    } finally {
      session.close();
      for (const { file, source } of files) writeFileSync(path.join(scratch, file), source);
    }
  }
  return tallies.map(({ result }) => result);
}

/** With the C++ sources and pages, which some unit tests compare names with. */
function copyTree(scratch: string): void {
  const isBuilt = (file: string): boolean => path.basename(file) === 'build';
  for (const name of ['package.json', 'tsconfig.json', 'src', 'test', 'native', 'docs']) {
    cpSync(path.join(ROOT, name), path.join(scratch, name), { recursive: true, filter: (file) => !isBuilt(file) });
  }
  symlinkSync(path.join(ROOT, 'node_modules'), path.join(scratch, 'node_modules'));
}

function subjectOf({ files, tests }: Target, wanted: string): Subject {
  const named = files.flatMap(filesLike).filter((file) => file.includes(wanted));
  const isNative = named.some((file) => file.endsWith('.cc'));
  return {
    files: named.map((file) => ({ file, source: readFileSync(path.join(ROOT, file), 'utf8') })),
    tests: isNative ? tests : tests.flatMap(filesLike),
    isNative,
  };
}

/** Files that a pattern names; none where the directory does not exist. */
function filesLike(pattern: string): readonly string[] {
  const directory = path.dirname(pattern);
  const parts = path.basename(pattern).split('*');
  const name = new RegExp(`^${parts.map((part) => part.replaceAll('.', '\\.')).join('[^/]*')}$`);
  try {
    return readdirSync(path.join(ROOT, directory))
      .filter((each) => name.test(each))
      .map((each) => path.join(directory, each));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

function lengthOf(subjects: readonly Subject[]): number {
  return subjects.flatMap(({ files }) => files).reduce((sum, { source }) => sum + source.length, 0);
}

function mutantsOf(file: string): readonly Mutant[] {
  const source = readFileSync(path.join(ROOT, file), 'utf8');
  return file.endsWith('.cc') ? mutateNative(source) : mutate(file, source).mutants;
}

function rotated<T>(list: readonly T[], by: number): readonly T[] {
  const start = by % list.length;
  return [...list.slice(start), ...list.slice(0, start)];
}

/** In an order that depends on the seed alone, so that another box of time covers others. */
function shuffled<T>(list: readonly T[], seed: number): readonly T[] {
  // Fibonacci hashing of the index: even over the list for every seed, and the same on every machine.
  const rank = (index: number): number => Math.imul(index + 1 + seed * 7919, 0x9e3779b1) >>> 0;
  return list
    .map((item, index) => ({ item, rank: rank(index) }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ item }) => item);
}

function report(results: readonly Result[], seed: number): void {
  const write = (line: string): void => void process.stdout.write(`${line}\n`);
  write('| file | mutants | tried | killed | explained | survived |');
  write('| --- | ---: | ---: | ---: | ---: | ---: |');
  for (const { file, mutants, tried, killed, explained, survivors } of results) {
    write(`| ${file} | ${mutants} | ${tried} | ${killed} | ${explained} | ${survivors.length} |`);
  }
  for (const { file, survivors } of results) {
    for (const { mutant, fate } of [...survivors].sort((a, b) => a.mutant.line - b.mutant.line)) {
      const how = fate === 'unreached' ? ' (no test comes by)' : '';
      write(`${file}:${mutant.line}: ${mutant.change}${how}\n    ${mutant.code}`);
    }
  }
  const sum = (count: (result: Result) => number): number => results.reduce((total, each) => total + count(each), 0);
  write(
    `seed ${seed}: ${sum(({ killed }) => killed)} killed, ${sum(({ explained }) => explained)} explained, ` +
      `${sum(({ survivors }) => survivors.length)} survived`,
  );
}
