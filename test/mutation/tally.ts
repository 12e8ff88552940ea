import { type Explanation, isAbout } from './explanations.js';
import type { Mutant } from './mutants.js';
import type { Fate } from './session.js';

/** What came of the mutants of one file. */
export interface Result {
  readonly file: string;
  mutants: number;
  tried: number;
  killed: number;
  explained: number;
  readonly survivors: { readonly mutant: Mutant; readonly fate: Fate }[];
}

/** Counts what comes of the mutants of one file, and says at once what survives. */
export class Tally {
  readonly result: Result;
  private readonly explained: readonly Explanation[];

  constructor(file: string, explanations: readonly Explanation[]) {
    this.result = { file, mutants: 0, tried: 0, killed: 0, explained: 0, survivors: [] };
    this.explained = explanations.filter((explanation) => explanation.file === file);
  }

  expect(mutants: number): void {
    this.result.mutants = mutants;
  }

  /** @param fate - undefined of one that does not compile. */
  note(mutant: Mutant, fate: Fate | undefined): void {
    const { result } = this;
    if (fate === undefined) {
      result.mutants--;
      return;
    }
    result.tried++;
    if (fate === 'killed') result.killed++;
    else if (this.explained.some((explanation) => isAbout(explanation, mutant))) result.explained++;
    else {
      result.survivors.push({ mutant, fate });
      process.stderr.write(`${result.file}:${mutant.line}: ${mutant.change}\n`);
    }
  }
}
