import assert from 'node:assert/strict';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Finding } from '../../src/ctl/doctor/facts.js';
import { ctlFile } from './daemon.js';
import type { Output } from './netns.js';
import type { Host } from './rig.js';
import { waitFor } from './wait.js';

/**
 * Somebody with a terminal on a host of a rig, who runs what the doctor prints: our programs are in the path, the
 * daemon's settings in the environment, and what systemd would do is done by the test.
 */
export class Operator {
  readonly #shims: string;

  constructor(readonly host: Host) {
    this.#shims = path.join(host.rig.directory, `${host.name}-shims`);
    mkdirSync(this.#shims);
    mkdirSync(this.defaults);
    this.shim('tsflannelctl', this.tsflannelctl);
  }

  /** Stands in for `/etc/default`. */
  get defaults(): string {
    return path.join(this.#shims, 'default');
  }

  /** Runs `tsflannelctl` with the words of a shell script. */
  readonly tsflannelctl = `exec '${process.execPath}' '${ctlFile()}' "$@"`;

  /** Puts a program of ours under that name before those of the machine. */
  shim(name: string, script: string): void {
    writeFileSync(path.join(this.#shims, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }

  /** Runs a script in the host's namespace, without a terminal. */
  async shell(script: string): Promise<Output> {
    const { netns, rig, daemon } = this.host;
    const env = {
      PATH: `${this.#shims}:${process.env['PATH'] ?? ''}`,
      FLANNELD_ETCD_ENDPOINTS: rig.etcd.endpoint,
      FLANNELD_STATUS_SOCKET: daemon?.statusSocket ?? '',
      FLANNELD_SUBNET_FILE: daemon?.subnetFile ?? '',
    };
    // `ip netns exec` gives each command mounts of its own. Whose the machine is, the rig must not depend on.
    const anyMachine = 'if [ -d /sys/class/dmi/id ]; then mount -t tmpfs tmpfs /sys/class/dmi/id; fi';
    return netns.run(['sh', '-c', `mount --bind '${this.defaults}' /etc/default && ${anyMachine} && ${script}`], {
      env,
      mayFail: true,
      timeoutMs: 90_000,
    });
  }

  /**
   * Types a command at a terminal and says yes to whatever is asked.
   *
   * @throws AssertionError if it fails.
   */
  async type(command: string): Promise<void> {
    const script = path.join(this.#shims, 'typed');
    writeFileSync(script, `${command}\n`);
    const { code, stdout, stderr } = await this.shell(`yes | head -n 100 | script -qec 'sh ${script}' /dev/null`);
    assert.equal(code, 0, `${command}\n${stdout}${stderr}`);
  }

  /**
   * Types a command in which `systemctl` is called once.
   *
   * @param expected - the words after `systemctl`.
   * @param act - does what systemd would.
   */
  async typeWithService(command: string, expected: string, act: () => Promise<unknown>): Promise<void> {
    const [asked, done] = ['asked', 'done'].map((name) => path.join(this.#shims, name)) as [string, string];
    for (const file of [asked, done]) rmSync(file, { force: true });
    this.shim(
      'systemctl',
      `[ "$*" = '${expected}' ] || exit 1; : >'${asked}'; until [ -e '${done}' ]; do sleep 0.1; done`,
    );
    const typed = this.type(command);
    const isAsked = waitFor(() => existsSync(asked), { what: `systemctl ${expected}`, timeoutMs: 60_000 });
    await Promise.race([isAsked, typed]);
    await act();
    writeFileSync(done, '');
    await typed;
  }

  /**
   * What the doctor finds on this host.
   *
   * @param options - further words of its command line.
   */
  async findings(options = ''): Promise<readonly Finding[]> {
    const { stdout, stderr } = await this.shell(`tsflannelctl doctor --json ${options}`);
    assert.notEqual(stdout, '', stderr);
    return (JSON.parse(stdout) as { findings: readonly Finding[] }).findings;
  }

  /** What needs a look. */
  async serious(): Promise<readonly Finding[]> {
    return (await this.findings()).filter(({ severity }) => severity !== 'note');
  }

  /** The one finding that needs a look. */
  async onlyFinding(): Promise<Finding> {
    const findings = await this.serious();
    const [finding] = findings;
    assert.ok(finding !== undefined, 'the doctor finds nothing');
    assert.deepEqual(findings.slice(1), [], 'one cause, one finding');
    return finding;
  }
}
