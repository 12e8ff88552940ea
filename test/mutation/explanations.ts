import { readFileSync } from 'node:fs';
import type { Mutant } from './mutants.js';

/** Why a mutant that no test notices is none that one should. */
export interface Explanation {
  readonly file: string;
  /** As in {@link Mutant}; of several equal ones it is about all. */
  readonly code: string;
  readonly change: string;
  readonly why: string;
}

const FIELDS = ['file', 'code', 'change', 'why'] as const;

/**
 * Reads `survivors.json`.
 *
 * @throws TypeError for one that is not a list of explanations, each once.
 */
export function readExplanations(
  text = readFileSync(new URL('survivors.json', import.meta.url), 'utf8'),
): readonly Explanation[] {
  const list: unknown = JSON.parse(text);
  if (!Array.isArray(list)) throw new TypeError('survivors.json is no list');
  const seen = new Set<string>();
  return list.map((entry: unknown) => {
    const explanation = entry as Explanation;
    const isWhole = FIELDS.every((field) => typeof explanation[field] === 'string' && explanation[field] !== '');
    const name = describe(explanation);
    if (!isWhole) throw new TypeError(`survivors.json: ${JSON.stringify(entry)} needs the texts ${FIELDS.join(', ')}`);
    if (seen.has(name)) throw new TypeError(`survivors.json: ${name} stands there twice`);
    seen.add(name);
    return explanation;
  });
}

/** Whether an explanation is about that mutant of its file. */
export function isAbout({ code, change }: Explanation, mutant: Mutant): boolean {
  return code === mutant.code && change === mutant.change;
}

/** Explanations whose mutant does not exist any more. */
export function findStale(
  explanations: readonly Explanation[],
  mutantsOf: (file: string) => readonly Mutant[],
): readonly string[] {
  return explanations
    .filter((explanation) => !mutantsOf(explanation.file).some((mutant) => isAbout(explanation, mutant)))
    .map((explanation) => `${describe(explanation)}: there is no such mutant any more; remove it from survivors.json`);
}

function describe({ file, code, change }: Explanation): string {
  return `${file}: ${code}: ${change}`;
}
