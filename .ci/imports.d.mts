import type { Rule } from 'eslint';

/** Which file imports which. */
export type Imports = ReadonlyMap<string, ReadonlySet<string>>;

export const ROWS: readonly (readonly string[])[];
export const NEIGHBOURS: readonly (readonly [who: string, whom: string, why: string])[];
export function readImports(root: string): Imports;
export function faultOf(imports: Imports, file: string, imported: string): string | undefined;
export function unusedNeighbours(imports: Imports): readonly string[];
export function importRule(root: string): Rule.RuleModule;
