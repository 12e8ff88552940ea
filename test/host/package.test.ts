import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { buildPackagedAddon } from '../support/debian-package.js';
import { type Output, run } from '../support/netns.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
const COMPILERS = ['cc', 'c++', 'gcc', 'g++', 'clang', 'clang++', 'make', 'python3', 'node-gyp'];

describe('the npm tarball', function () {
  this.timeout(240_000);
  let directory: string;
  let tarball: string;
  let installed: string;

  before(async () => {
    directory = mkdtempSync(path.join(tmpdir(), 'tsflannel-npm-'));
    // dist is there already (.ci/setup.mjs); packing must not write to it while other tests run.
    await buildPackagedAddon();
    await run(['npm', 'pack', ROOT, '--ignore-scripts', '--pack-destination', directory], { timeoutMs: 60_000 });
    const [name = ''] = readdirSync(directory).filter((file) => file.endsWith('.tgz'));
    tarball = path.join(directory, name);
    installed = path.join(directory, 'prefix');
  });

  after(() => {
    rmSync(directory, { recursive: true });
  });

  /** Runs a command on a host that has Node and nothing to build with. */
  async function withoutCompiler(argv: readonly string[]): Promise<Output> {
    const bin = path.join(directory, 'bin');
    if (!existsSync(bin)) {
      mkdirSync(bin);
      const { stdout } = await run(['sh', '-c', 'for p in sh env npm uname; do command -v $p; done']);
      for (const program of stdout.trim().split('\n')) symlinkSync(program, path.join(bin, path.basename(program)));
      symlinkSync(process.execPath, path.join(bin, 'node'));
    }
    const found = COMPILERS.filter((program) => existsSync(path.join(bin, program)));
    assert.deepEqual(found, []);
    return run(argv, { env: { PATH: `${installed}/bin:${bin}` }, timeoutMs: 120_000 });
  }

  it('has programs, addon, its sources, units and pages, and nothing else', async () => {
    const { stdout } = await run(['tar', '-tzf', tarball]);
    const files = stdout
      .trim()
      .split('\n')
      .map((file) => file.replace(/^package\//, ''));
    for (const wanted of [
      ...['dist/bin/tsflanneld.js', 'dist/bin/tsflannelctl.js', 'dist/bin/mk-docker-opts.js'],
      'dist/observe/page/script.js',
      ...[`native/prebuilds/linux-${process.arch}/tsflannel.node`, 'native/binding.gyp', 'native/install.mjs'],
      ...['native/prebuilds/kernel_path.bpf.o', 'native/bpf/kernel_path.c', 'native/bpf/compile.mjs'],
      ...['native/addon/addon.cc', 'systemd/tsflanneld.service', 'systemd/install.sh', 'docs/quick-start.md'],
    ]) {
      assert.ok(files.includes(wanted), `${wanted} is missing`);
    }
    const strange = files.filter((file) => !/^(dist|native|systemd|docs)\/|^(package\.json|[A-Z]+(\.md)?)$/.test(file));
    assert.deepEqual(strange, []);
    assert.deepEqual(
      files.filter((file) => /^native\/build\/|\.map$|\.test\.|\.cache$/.test(file)),
      [],
    );
  });

  it('is installed without a compiler, with the native packet path', async () => {
    const npm = ['npm', 'install', '--global', `--prefix=${installed}`, '--prefer-offline', '--foreground-scripts'];
    const { stdout, stderr } = await withoutCompiler([...npm, tarball]);
    assert.doesNotMatch(`${stdout}${stderr}`, /not built|not found/);
    const version = await withoutCompiler(['tsflanneld', '--version']);
    assert.match(version.stderr, /^v\d+\.\d+\.\d+\n$/);
    for (const program of ['run-daemon', 'tsflannelctl']) {
      const byteCode = path.join(installed, `lib/node_modules/tsflannel/dist/bin/${program}.cache`);
      assert.ok(existsSync(byteCode), `${byteCode} was not made`);
    }
    const check = `import { isNativeAvailable } from '${installed}/lib/node_modules/tsflannel/dist/dataplane/native.js';
      console.log(isNativeAvailable());`;
    const { stdout: isNative } = await withoutCompiler(['node', '--input-type=module', '--eval', check]);
    assert.equal(isNative, 'true\n');
    assert.ok(!existsSync(path.join(installed, 'lib/node_modules/tsflannel/native/build')), 'the addon was built anew');
  });

  it('brings an install.sh that finds its programs', async () => {
    const destination = path.join(directory, 'root');
    const script = path.join(installed, 'lib/node_modules/tsflannel/systemd/install.sh');
    await run(['sh', script], { env: { DESTDIR: destination, NODE: process.execPath } });
    const unit = path.join(destination, 'etc/systemd/system/tsflanneld.service');
    const { stdout } = await run(['grep', '^ExecStart=', unit]);
    const [, node = '', program = ''] = /^ExecStart=(\S+) (\S+)/.exec(stdout) ?? [];
    const { stderr } = await run([node, program, '--version']);
    assert.match(stderr, /^v\d/);
  });
});
