import { randomUUID } from 'node:crypto';
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import path from 'node:path';
import { OverlayError, describeError } from '../errors.js';
import type { FormerValue, FormerValues } from './former-values.js';

/** Name of the file in the state directory. */
export const FORMER_VALUES_FILE = 'kernel-parameters.json';

/** Who changes parameters in a daemon, as they are told apart in the file. */
export const PARAMETERS_OF = {
  overlay: 'overlay',
  ndpProxy: 'ndp-proxy',
  containers: 'containers',
  /** Settings of devices, which are no files under `/proc/sys`. */
  kernelPath: 'kernel-path',
} as const;

/**
 * What parameters were before, on disk, so that it outlives the process. A reboot ends it: the kernel forgets as well.
 *
 * API: {@link open}, {@link of} for each who changes parameters.
 * Limits: read once and written whole, some 100 bytes for each parameter.
 * Errors: a file that cannot be read counts as empty: nothing is put back then, and nothing is set to a wrong value.
 */
export class FormerValuesFile {
  private constructor(
    private readonly file: string,
    private readonly boot: string,
    private readonly sections: Map<string, Map<string, FormerValue>>,
  ) {}

  /**
   * @param directory - the state directory.
   * @param boot - another one after each reboot; default the kernel's.
   */
  static open(directory: string, boot = bootId()): FormerValuesFile {
    const file = path.join(directory, FORMER_VALUES_FILE);
    return new FormerValuesFile(file, boot, readSections(file, boot));
  }

  /**
   * What one of those remembers who change parameters; or several of them together, for somebody who puts all of it back.
   *
   * @param names - what is remembered anew belongs to the first.
   */
  of(...names: readonly [string, ...string[]]): FormerValues {
    const sections = names.map((name) => this.section(name));
    const [own] = sections;
    const write = (): void => this.write();
    return {
      get entries() {
        return new Map(sections.flatMap((section) => [...section]));
      },
      remember(parameter, value) {
        own?.set(parameter, value);
        write();
      },
      forget(parameter) {
        for (const section of sections) section.delete(parameter);
        try {
          write();
        } catch {
          // It still names what has its value back: looked at again after a restart, and found to be somebody else's.
        }
      },
    };
  }

  private section(name: string): Map<string, FormerValue> {
    const known = this.sections.get(name);
    if (known !== undefined) return known;
    const section = new Map<string, FormerValue>();
    this.sections.set(name, section);
    return section;
  }

  private write(): void {
    const { boot, file } = this;
    const parameters = Object.fromEntries(
      [...this.sections].map(([name, section]) => [name, Object.fromEntries(section)] as const),
    );
    const temporary = `${file}.new`;
    try {
      mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
      const fd = openSync(temporary, 'w', 0o600);
      try {
        writeSync(fd, `${JSON.stringify({ boot, parameters })}\n`);
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      renameSync(temporary, file);
    } catch (cause) {
      throw new OverlayError('ERR_SYSCTL', `cannot note kernel parameters in ${file}: ${describeError(cause)}`, {
        cause,
        context: { file },
        hint: 'make the state directory writable: without the note nobody could put the parameters back',
        isRetryable: true,
      });
    }
  }
}

/** See random(4); where nobody can tell, every process counts as another boot. */
function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return randomUUID();
  }
}

function readSections(file: string, boot: string): Map<string, Map<string, FormerValue>> {
  const sections = new Map<string, Map<string, FormerValue>>();
  const saved = readJson(file);
  if (saved.boot !== boot) return sections;
  for (const [name, parameters] of Object.entries(asObject(saved.parameters))) {
    const section = new Map<string, FormerValue>();
    for (const [parameter, each] of Object.entries(asObject(parameters))) {
      const { former, value, keptWhile } = asObject(each);
      if (typeof former !== 'string' || typeof value !== 'string') continue;
      const kept = readCondition(keptWhile);
      section.set(parameter, { former, value, ...(kept && { keptWhile: kept }) });
    }
    sections.set(name, section);
  }
  return sections;
}

function readCondition(saved: unknown): FormerValue['keptWhile'] {
  const { path: parameter, value } = asObject(saved);
  return typeof parameter === 'string' && typeof value === 'string' ? { path: parameter, value } : undefined;
}

function readJson(file: string): Readonly<Record<string, unknown>> {
  try {
    return asObject(JSON.parse(readFileSync(file, 'utf8')));
  } catch {
    return {}; // none yet, or nothing that could be put back
  }
}

function asObject(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
}
