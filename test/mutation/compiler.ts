import { readFileSync } from 'node:fs';
import path from 'node:path';
import ts from 'typescript';

/** What a change makes unused or unreachable would be tidied up by whoever made it by mistake. */
const LENIENT: ts.CompilerOptions = { noUnusedLocals: false, noUnusedParameters: false, allowUnreachableCode: true };

/** Says of changed sources whether they would compile. The first takes seconds, as the whole program is read for it. */
export class Compiler {
  readonly #changed = new Map<string, { readonly text: string; readonly version: number }>();
  readonly #service: ts.LanguageService;
  #version = 0;

  /** @param root - where `tsconfig.json` is. */
  constructor(private readonly root: string) {
    const { config } = ts.readConfigFile(path.join(root, 'tsconfig.json'), (file) => readFileSync(file, 'utf8')) as {
      readonly config: unknown;
    };
    const { options, fileNames } = ts.parseJsonConfigFileContent(config, ts.sys, root);
    this.#service = ts.createLanguageService({
      getCompilationSettings: () => ({ ...options, ...LENIENT }),
      getScriptFileNames: () => fileNames,
      getScriptVersion: (file) => String(this.#changed.get(file)?.version ?? 0),
      getScriptSnapshot: (file) => {
        const text = this.#changed.get(file)?.text ?? ts.sys.readFile(file);
        return text === undefined ? undefined : ts.ScriptSnapshot.fromString(text);
      },
      getCurrentDirectory: () => root,
      getDefaultLibFileName: (given) => ts.getDefaultLibFilePath(given),
      fileExists: (file) => ts.sys.fileExists(file),
      readFile: (file, encoding) => ts.sys.readFile(file, encoding),
      directoryExists: (name) => ts.sys.directoryExists(name),
      getDirectories: (name) => ts.sys.getDirectories(name),
    });
  }

  /** Whether a file, given by its path below the root, has no error in itself with that text. */
  doesCompile(file: string, text: string): boolean {
    const name = path.join(this.root, file);
    this.#changed.set(name, { text, version: ++this.#version });
    try {
      const { length: syntax } = this.#service.getSyntacticDiagnostics(name);
      return syntax === 0 && this.#service.getSemanticDiagnostics(name).length === 0;
    } finally {
      this.#changed.delete(name);
    }
  }
}
