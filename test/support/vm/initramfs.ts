import { readFileSync } from 'node:fs';
import path from 'node:path';

/** The modules that the guest's root file system needs before it is there. */
const MODULES = ['virtio_pci', '9pnet_virtio', '9p', 'overlay'];
const INIT = new URL('init.sh', import.meta.url);

/** What {@link initramfs} puts in. */
export interface InitramfsOptions {
  /** Directory of the kernel's modules. */
  readonly modules: string;
  /** A busybox that needs no libraries. */
  readonly busybox: string;
  /** Variables of the guest's scripts. */
  readonly settings: Readonly<Record<string, string>>;
}

/** The first file system of the guest: busybox, the modules that its real one needs, and `init.sh`, which mounts that. */
export function initramfs({ modules, busybox, settings }: InitramfsOptions): Buffer {
  const inOrder = loadOrder(readFileSync(path.join(modules, 'modules.dep'), 'utf8'), MODULES);
  const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
  const lines = Object.entries(settings).map(([name, value]) => `export ${name}=${quote(value)}\n`);
  return cpio([
    { name: 'init', content: readFileSync(INIT), isProgram: true },
    { name: 'settings', content: Buffer.from(lines.join('')) },
    { name: 'busybox', content: readFileSync(busybox), isProgram: true },
    { name: 'modules' },
    ...inOrder.map((file, index) => ({
      name: `modules/${String(index).padStart(2, '0')}-${path.basename(file)}`,
      content: readFileSync(path.join(modules, file)),
    })),
  ]);
}

/**
 * The files of some modules and of all that these need, each after those that it needs.
 *
 * @param dependencies - contents of a `modules.dep` (modules.dep(5)).
 * @throws Error if a module is not listed.
 * @internal
 */
export function loadOrder(dependencies: string, names: readonly string[]): string[] {
  const needs = new Map<string, readonly string[]>();
  const files = new Map<string, string>();
  for (const [, file = '', needed = ''] of dependencies.matchAll(/^(\S+):(.*)$/gm)) {
    needs.set(file, needed.split(' ').filter(Boolean));
    // In the names of modules - and _ are the same.
    files.set(path.basename(file, '.ko').replaceAll('-', '_'), file);
  }
  const inOrder = new Set<string>();
  const add = (file: string): void => {
    for (const needed of needs.get(file) ?? []) add(needed);
    inOrder.add(file);
  };
  for (const name of names) {
    const file = files.get(name.replaceAll('-', '_'));
    if (file === undefined) throw new Error(`this kernel has no module ${name}`);
    add(file);
  }
  return [...inOrder];
}

/** A file, or a directory if it has no content. */
export interface CpioEntry {
  readonly name: string;
  readonly content?: Buffer;
  readonly isProgram?: boolean;
}

/**
 * A cpio archive of the form that the kernel unpacks (`newc`, Documentation/driver-api/early-userspace/buffer-format.rst).
 *
 * @internal
 */
export function cpio(entries: readonly CpioEntry[]): Buffer {
  const DIRECTORY = 0o040755;
  const all = [...entries, { name: 'TRAILER!!!', content: Buffer.alloc(0) } satisfies CpioEntry];
  return Buffer.concat(
    all.flatMap(({ name, content, isProgram = false }: CpioEntry, index) => {
      const mode = content === undefined ? DIRECTORY : isProgram ? 0o100755 : 0o100644;
      const size = content?.length ?? 0;
      // Inode, mode, owner, group, links, time, size, device and its device (two numbers each), length of name, checksum.
      const fields = [index + 1, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.length + 1, 0];
      const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}${name}\0`;
      return [aligned(Buffer.from(header)), aligned(content ?? Buffer.alloc(0))];
    }),
  );
}

function aligned(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
}
