import assert from 'node:assert/strict';
import { ContainerFirewall } from '../../../../src/firewall/containers/container-firewall.js';
import type { ContainerRuleInput } from '../../../../src/firewall/containers/container-rules.js';
import { isOverlayError } from '../../../../src/errors.js';
import type { WatchNftables } from '../../../../src/firewall/nft-events.js';
import type { CommandResult, RunCommand } from '../../../../src/sys/command.js';
import { net } from '../../../support/builders.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { RecordingLogger } from '../../../support/recorder.js';
import { FakePrograms } from '../fake-programs.js';

const INPUT: ContainerRuleInput = {
  networks: [
    {
      bridge: 'tsfb-web',
      subnets: [net('198.51.100.0/25')],
      isInternal: false,
      isIccAllowed: true,
      ipv6Firewall: 'closed',
    },
  ],
  ports: [],
  overlay: [],
  routed: [],
  hosts: [],
  dockerBridges: [],
};

/** iptables of a host that exists only here, and an nft that keeps one table. */
class FakeHost {
  readonly iptables = new FakePrograms();
  hasNft = true;
  script: string | undefined;
  writes = 0;
  #handle = 0;

  readonly run: RunCommand = (program, args, stdin = '') => {
    if (program !== 'nft') return this.iptables.run(program, args, stdin);
    return Promise.resolve(this.hasNft ? this.#nft(args.join(' '), stdin) : undefined);
  };

  #nft(args: string, stdin: string): CommandResult {
    const ok = (stdout: string): CommandResult => ({ exitCode: 0, stdout, stderr: '' });
    const table = /add table (.*)/.exec(this.script ?? '')?.[1];
    if (args === 'list tables') return ok(table === undefined ? '' : `table ${table}\n`);
    if (args === '-f -') {
      this.writes++;
      this.#handle++;
      this.script = stdin.startsWith('delete') ? undefined : stdin;
      return ok('');
    }
    if (this.script === undefined) return { exitCode: 1, stdout: '', stderr: 'Error: No such file or directory' };
    const rules = [...this.script.matchAll(/^add rule \S+ \S+ (\S+) .*comment "([^"]*)"$/gm)];
    const shown = rules.map(([, chain, comment]) => ({ rule: { chain, comment, handle: this.#handle } }));
    return ok(JSON.stringify({ nftables: [...shown, { script: this.script }] }));
  }
}

describe('ContainerFirewall', () => {
  let host: FakeHost;
  let clock: FakeClock;
  let log: RecordingLogger;
  let notify: (tables: ReadonlySet<string> | undefined) => void;
  const open: ContainerFirewall[] = [];

  const watch: WatchNftables = (onChange) => {
    notify = onChange;
    return () => undefined;
  };

  const make = (instance = 'coreos.com/network'): ContainerFirewall => {
    const firewall = new ContainerFirewall({ log, clock, instance, resyncMs: 5000, run: host.run, watch });
    open.push(firewall);
    return firewall;
  };

  const forward = (): string => host.iptables.save('iptables');

  beforeEach(() => {
    host = new FakeHost();
    clock = new FakeClock();
    log = new RecordingLogger();
  });

  afterEach(async () => {
    for (const each of open.splice(0)) await each.close();
  });

  it('writes the table and the jump from FORWARD, and nothing again that is so already', async () => {
    const firewall = make();
    await firewall.apply(INPUT);
    await firewall.apply({ ...INPUT });
    assert.equal(host.writes, 1);
    assert.match(forward(), /-A FORWARD .*-j TSFLANNEL-[0-9a-f]{8}\n/);
    assert.match(forward(), /-A TSFLANNEL-[0-9a-f]{8} -i tsfb-\+ .*-j ACCEPT\n/);
    assert.equal(firewall.status().isInPlace, true);
  });

  it('writes the table anew for another port', async () => {
    const firewall = make();
    await firewall.apply(INPUT);
    await firewall.apply({ ...INPUT, dockerBridges: ['docker0'] });
    assert.equal(host.writes, 2);
    assert.match(host.script ?? '', /docker0/);
  });

  it('leaves nothing where nothing is wanted, also of an earlier process', async () => {
    await make().apply(INPUT);
    await make().apply({ ...INPUT, networks: [] });
    assert.equal(host.script, undefined);
    assert.doesNotMatch(forward(), /TSFLANNEL/);
  });

  it("keeps Docker's own networks from those of other hosts where this host is in none", async () => {
    const firewall = make();
    await firewall.apply({ ...INPUT, networks: [], routed: [net('198.51.100.0/25')], dockerBridges: ['docker0'] });
    assert.match(host.script ?? '', /198\.51\.100\.0\/25/);
    assert.equal(firewall.status().isInPlace, true);
    await firewall.apply({ ...INPUT, networks: [], dockerBridges: ['docker0'] });
    assert.equal(host.script, undefined);
  });

  it('does not touch the rules of another daemon', async () => {
    await make().apply(INPUT);
    await make('other').apply(undefined);
    assert.notEqual(host.script, undefined);
  });

  it('works without iptables', async () => {
    host.iptables.installed.clear();
    await make().apply(INPUT);
    assert.equal(host.writes, 1);
  });

  it('says what to install without nft, and tries again', async () => {
    host.hasNft = false;
    const firewall = make();
    await assert.rejects(firewall.apply(INPUT), (error) => isOverlayError(error) && /nftables/.test(error.hint ?? ''));
    assert.equal(firewall.status().isInPlace, false);
    host.hasNft = true;
    await clock.advance(5000);
    assert.equal(firewall.status().isInPlace, true);
  });

  it('repairs what the kernel tells of, and counts it', async () => {
    const firewall = make();
    await firewall.apply(INPUT);
    host.script = undefined;
    notify(new Set([firewall.status().table.split(' ')[1] ?? '']));
    await clock.advance(200);
    assert.notEqual(host.script, undefined);
    assert.equal(firewall.status().repaired['table-missing'], 1);
  });

  it('looks after a minute where the kernel has told of nothing', async () => {
    const firewall = make();
    await firewall.apply(INPUT);
    await clock.advance(5000);
    host.script = undefined;
    await clock.advance(50_000);
    assert.equal(host.script, undefined);
    await clock.advance(10_000);
    assert.notEqual(host.script, undefined);
  });

  it('looks at every turn where iptables tells of nothing', async () => {
    host.iptables.version = 'iptables v1.8.9 (legacy)';
    const firewall = make();
    await firewall.apply(INPUT);
    host.script = undefined;
    await clock.advance(5000);
    assert.notEqual(host.script, undefined);
    assert.equal(firewall.status().repaired['table-missing'], 1);
  });

  it('leaves what an earlier process wrote until more is known, and writes where there is nothing', async () => {
    const first = make();
    await first.apply(INPUT);
    await first.close();
    const second = make();
    await second.apply({ ...INPUT, dockerBridges: ['docker0'] }, { isProvisional: true });
    assert.equal(host.writes, 1);
    assert.equal(second.status().isInPlace, true);
    await second.apply({ ...INPUT, dockerBridges: ['docker0'] });
    assert.equal(host.writes, 2);
    host.script = undefined;
    await make().apply(INPUT, { isProvisional: true });
    assert.equal(host.writes, 3);
  });
});
