import assert from 'node:assert/strict';
import { isOverlayError } from '../../../src/errors.js';
import { Firewall, type FirewallSpec } from '../../../src/firewall/firewall.js';
import { parseVersion } from '../../../src/firewall/iptables.js';
import { net } from '../../support/builders.js';
import { FakeClock, settle } from '../../support/fake-clock.js';
import { RecordingLogger } from '../../support/recorder.js';
import { FakePrograms } from './fake-programs.js';

const V4 = { network: net('10.5.0.0/16'), subnet: net('10.5.34.0/24') };
const V6 = { network: net('2001:db8:5::/48'), subnet: net('2001:db8:5:22::/64') };
const IPTABLES: FirewallSpec = {
  mode: 'iptables',
  networks: [V4],
  previousNetworks: [],
  ipMasq: true,
  forwardRules: true,
  isFullyRandom: true,
};
const NFTABLES: FirewallSpec = { ...IPTABLES, mode: 'nftables' };

describe('Firewall', () => {
  let programs: FakePrograms;
  let clock: FakeClock;
  let log: RecordingLogger;
  let firewall: Firewall;
  let notify: ((tables: ReadonlySet<string> | undefined) => void) | undefined;

  beforeEach(() => {
    programs = new FakePrograms();
    clock = new FakeClock();
    log = new RecordingLogger();
    notify = undefined;
    firewall = new Firewall({
      log,
      clock,
      resyncMs: 5000,
      run: programs.run,
      watch: (onChange) => {
        notify = onChange;
        return () => (notify = undefined);
      },
    });
  });
  afterEach(() => firewall.close());

  const chain = (name: string, base = 'iptables'): readonly string[] =>
    programs.rules(base, name === 'FLANNEL-FWD' || name === 'FORWARD' ? 'filter' : 'nat', name) ?? [];
  const breakChain = (): void => {
    programs.load('iptables', '*nat\n-F FLANNEL-POSTRTG\nCOMMIT\n');
    notify?.(new Set(['nat']));
  };

  it('installs the rules of both families', async () => {
    await firewall.apply({ ...IPTABLES, networks: [V4, V6] });
    assert.equal(chain('FLANNEL-POSTRTG').length, 6);
    assert.equal(chain('FLANNEL-POSTRTG', 'ip6tables').length, 6);
    assert.deepEqual(firewall.status(), {
      mode: 'iptables',
      isInPlace: true,
      repaired: {
        'chain-missing': 0,
        'chain-changed': 0,
        'jump-missing': 0,
        'jump-duplicate': 0,
        'table-missing': 0,
        'table-changed': 0,
      },
      lastError: undefined,
    });
  });

  it('looks after the rules at every resync, and counts and logs what it repairs', async () => {
    await firewall.apply(IPTABLES);
    breakChain();
    await clock.advance(4999);
    assert.equal(chain('FLANNEL-POSTRTG').length, 0);
    await clock.advance(1);
    assert.equal(chain('FLANNEL-POSTRTG').length, 6);
    assert.equal(firewall.status().repaired['chain-changed'], 1);
    const [line] = log.find(/repaired firewall rules/, 'warn');
    assert.deepEqual([line?.fields.kind, line?.fields.detail], ['chain-changed', 'nat/FLANNEL-POSTRTG']);
  });

  it('only reads at a resync that finds everything in place', async () => {
    await firewall.apply(IPTABLES);
    const before = programs.writes().length;
    await clock.advance(20_000);
    assert.equal(programs.writes().length, before);
  });

  it('looks at rules of iptables-nft only after a change in its tables, and once a minute', async () => {
    await firewall.apply(IPTABLES);
    await clock.advance(5000);
    const lists = (): number => programs.calls.filter((call) => call.startsWith('iptables')).length;
    let before = lists();
    await clock.advance(50_000);
    notify?.(new Set(['kube-proxy']));
    await clock.advance(5000);
    assert.equal(lists(), before);
    await clock.advance(5000);
    assert(lists() > before, 'not looked unprompted');
    before = lists();
    notify?.(undefined);
    await clock.advance(5000);
    assert(lists() > before, 'not looked after lost notifications');
  });

  it('looks at rules of iptables-legacy at every resync, as the kernel reports no change of them', async () => {
    programs.version = 'iptables v1.8.9 (legacy)';
    await firewall.apply(IPTABLES);
    breakChain();
    await clock.advance(5000);
    assert.equal(firewall.status().repaired['chain-changed'], 1);
  });

  it('reads no rules of others while its own are in place', async () => {
    await firewall.apply(IPTABLES);
    programs.calls.length = 0;
    assert.deepEqual(await firewall.check(), []);
    assert.deepEqual(programs.calls, [
      'iptables -t nat -S FLANNEL-POSTRTG',
      'iptables -t nat -S POSTROUTING',
      'iptables -t filter -S FLANNEL-FWD',
      'iptables -t filter -S FORWARD',
      'iptables -t filter -S DOCKER-USER',
    ]);
  });

  it('logs a quarrel with another program once a minute', async () => {
    await firewall.apply(IPTABLES);
    for (let round = 0; round < 24; round++) {
      breakChain();
      await clock.advance(5000);
    }
    const lines = log.find(/repaired firewall rules/);
    assert.equal(lines.length, 2);
    assert.equal(lines[1]?.fields.count, 12);
    assert.equal(firewall.status().repaired['chain-changed'], 24);
  });

  it('does not write again when the same is asked for', async () => {
    await firewall.apply(NFTABLES);
    const before = programs.writes().length;
    await firewall.apply({ ...NFTABLES });
    assert.equal(programs.writes().length, before);
  });

  it('moves from iptables to nftables and back, with the new rules in place before the old ones go', async () => {
    await firewall.apply({ ...IPTABLES, networks: [V4, V6] });
    programs.calls.length = 0;
    await firewall.apply({ ...NFTABLES, networks: [V4, V6] });
    assert.deepEqual([...programs.nft.keys()], ['ip flannel-ipv4', 'ip6 flannel-ipv6']);
    assert.doesNotMatch(programs.save('iptables') + programs.save('ip6tables'), /FLANNEL/);
    const writes = programs.writes();
    assert.match(writes[0] ?? '', /^nft -f/);
    assert.match(writes[1] ?? '', /^iptables-restore/);

    programs.calls.length = 0;
    await firewall.apply({ ...IPTABLES, networks: [V4, V6] });
    assert.equal(programs.nft.size, 0);
    assert.match(programs.writes().at(-1) ?? '', /^nft -f/);
    assert.equal(log.find(/mode changes/).length, 2);
  });

  it('removes what is no longer wanted: a family, the masquerading, everything', async () => {
    await firewall.apply({ ...IPTABLES, networks: [V4, V6] });
    await firewall.apply(IPTABLES);
    assert.doesNotMatch(programs.save('ip6tables'), /FLANNEL/);
    await firewall.apply({ ...IPTABLES, ipMasq: false });
    assert.doesNotMatch(programs.save('iptables'), /POSTRTG/);
    assert.equal(chain('FLANNEL-FWD').length, 2);
    await firewall.apply({ ...IPTABLES, ipMasq: false, forwardRules: false });
    assert.doesNotMatch(programs.save('iptables'), /FLANNEL/);
    await firewall.apply({ ...NFTABLES, networks: [V4, V6] });
    await firewall.apply(NFTABLES);
    assert.deepEqual([...programs.nft.keys()], ['ip flannel-ipv4']);
    await firewall.apply({ ...NFTABLES, ipMasq: false, forwardRules: false });
    assert.equal(programs.nft.size, 0);
  });

  it('removes rules that old flannel wrote for the network of the old subnet file', async () => {
    const rule = '-s 10.9.0.0/16 -d 10.9.0.0/16 -m comment --comment "flanneld masq" -j RETURN';
    programs.load('iptables', `*nat\n-A POSTROUTING ${rule}\nCOMMIT\n`);
    await firewall.apply(IPTABLES);
    assert(chain('POSTROUTING').includes(rule));
    await firewall.apply({ ...NFTABLES, previousNetworks: [net('10.9.0.0/16')] });
    assert.deepEqual(chain('POSTROUTING'), []);
  });

  it('removes our chains from the tables of the other variant of iptables', async () => {
    programs.installed.add('iptables-legacy');
    programs.load('iptables-legacy', '*filter\n:FLANNEL-FWD - [0:0]\nCOMMIT\n');
    await firewall.apply(IPTABLES);
    assert.doesNotMatch(programs.save('iptables-legacy'), /FLANNEL/);
    assert.equal(chain('FLANNEL-FWD').length, 2);
  });

  it('needs no iptables in nftables mode and no nft in iptables mode', async () => {
    programs.installed.delete('iptables');
    programs.installed.delete('ip6tables');
    await firewall.apply({ ...NFTABLES, networks: [V4, V6] });
    assert.equal(firewall.status().isInPlace, true);
    assert.deepEqual(log.find(/./, 'warn'), []);

    programs.installed.add('iptables');
    programs.installed.delete('nft');
    await firewall.apply(IPTABLES);
    assert.equal(chain('FLANNEL-FWD').length, 2);
    assert.deepEqual(log.find(/./, 'warn'), []);
  });

  it('names the package when the program of a wanted mode is missing, and installs the rules once it is there', async () => {
    programs.installed.delete('iptables');
    await assert.rejects(firewall.apply(IPTABLES), (error: unknown) => {
      assert(isOverlayError(error, 'ERR_FIREWALL'));
      assert.equal(error.hint, 'install the package iptables');
      return true;
    });
    assert.equal(firewall.status().isInPlace, false);
    assert.match(firewall.status().lastError ?? '', /there is no program iptables-save; install the package iptables/);
    await clock.advance(50_000);
    assert.equal(log.find(/cannot look after/, 'error').length, 1);

    programs.installed.add('iptables');
    await clock.advance(5000);
    assert.equal(firewall.status().isInPlace, true);
    assert.equal(chain('FLANNEL-POSTRTG').length, 6);
    assert.equal(log.find(/in place again/).length, 1);
  });

  it('tells of a failure at once if there was none since the last one it told of', async () => {
    await firewall.apply(IPTABLES);
    for (const failures of [1, 2]) {
      programs.installed.delete('iptables');
      breakChain();
      await clock.advance(10_000);
      assert.equal(log.find(/cannot look after/, 'error').length, failures);
      programs.installed.add('iptables');
      await clock.advance(5000);
      assert.equal(log.find(/in place again/).length, failures);
    }
  });

  it('counts every object that it repaired in one look', async () => {
    await firewall.apply(IPTABLES);
    breakChain();
    programs.load('iptables', '*filter\n-F FLANNEL-FWD\nCOMMIT\n');
    await clock.advance(5000);
    assert.equal(log.find(/repaired firewall rules/)[0]?.fields.count, 2);
  });

  it('accepts a host without any program when no rules are wanted', async () => {
    programs.installed.clear();
    await firewall.apply({ ...IPTABLES, ipMasq: false, forwardRules: false });
    assert.equal(firewall.status().isInPlace, true);
    assert.deepEqual(log.find(/./, 'warn'), []);
  });

  it('keeps the wanted rules and warns when leftovers cannot be removed', async () => {
    programs.failures.set('nft', 'Error: Operation not supported');
    await firewall.apply(IPTABLES);
    assert.equal(firewall.status().isInPlace, true);
    assert.match(String(log.find(/no longer wanted stay/, 'warn')[0]?.fields.error), /Operation not supported/);
  });

  it('asks for random ports and for the lock only from an iptables that has both', async () => {
    programs.version = 'iptables v1.6.1';
    await firewall.apply(IPTABLES);
    assert(chain('FLANNEL-POSTRTG').every((rule) => !rule.includes('--random-fully')));
    assert(programs.calls.includes('iptables-restore --noflush'));
    await firewall.close();

    const modern = new FakePrograms();
    const other = new Firewall({ log, clock, resyncMs: 0, run: modern.run });
    await other.apply(IPTABLES);
    assert.equal(
      modern.rules('iptables', 'nat', 'FLANNEL-POSTRTG')?.filter((rule) => rule.includes('--random-fully')).length,
      2,
    );
    assert(modern.calls.includes('iptables-restore --noflush --wait'));
    await other.apply({ ...IPTABLES, isFullyRandom: false });
    assert.doesNotMatch(modern.save('iptables'), /random-fully/);
    await other.close();
  });

  describe('with change events', () => {
    const change = (...tables: string[]): void => notify?.(new Set(tables));

    it('repairs shortly after somebody changed our table', async () => {
      await firewall.apply(NFTABLES);
      programs.nft.delete('ip flannel-ipv4');
      change('flannel-ipv4');
      await clock.advance(200);
      assert(programs.nft.has('ip flannel-ipv4'));
      assert.equal(firewall.status().repaired['table-missing'], 1);
    });

    it('looks when notifications were lost, and not when tables of others change', async () => {
      await firewall.apply(NFTABLES);
      const before = programs.calls.length;
      change('nat', 'kube-proxy');
      await clock.advance(1000);
      assert.equal(programs.calls.length, before);
      notify?.(undefined);
      await clock.advance(200);
      assert(programs.calls.length > before);
    });

    it('does not let a quarrel keep it busy', async () => {
      await firewall.apply(NFTABLES);
      for (let round = 0; round < 100; round++) {
        programs.nft.delete('ip flannel-ipv4');
        change('flannel-ipv4');
        await clock.advance(200);
      }
      assert(
        firewall.status().repaired['table-missing'] <= 12,
        `${firewall.status().repaired['table-missing']} repairs in 20 s`,
      );
    });

    it('watches where the kernel reports changes, and not after close', async () => {
      programs.version = 'iptables v1.8.9 (legacy)';
      await firewall.apply(IPTABLES);
      assert.equal(notify, undefined);
      await firewall.apply(NFTABLES);
      assert.notEqual(notify, undefined);
      await firewall.close();
      assert.equal(notify, undefined);
    });

    it('forgets a change it was told of when it closes', async () => {
      await firewall.apply(NFTABLES);
      change('flannel-ipv4');
      await firewall.close();
      assert.equal(clock.pending, 0);
    });

    it('goes on with the timer alone when the kernel refuses to notify', async () => {
      const watch = (): never => {
        throw new Error('EPERM');
      };
      const other = new Firewall({ log, clock, resyncMs: 5000, run: programs.run, watch });
      await other.apply(NFTABLES);
      assert.equal(log.find(/noticed only by the timer/, 'warn').length, 1);
      programs.nft.clear();
      await clock.advance(5000);
      assert(programs.nft.has('ip flannel-ipv4'));
      await other.close();
    });
  });

  it('leaves the rules in place when it closes, and no timer', async () => {
    await firewall.apply(IPTABLES);
    const before = programs.save('iptables');
    await firewall.close();
    await firewall.close();
    assert.equal(programs.save('iptables'), before);
    assert.equal(clock.pending, 0);
    breakChain();
    await clock.advance(60_000);
    await settle();
    assert.equal(chain('FLANNEL-POSTRTG').length, 0);
  });

  it('cleans up both modes, whichever flannel left behind, and tells what it removed', async () => {
    await firewall.apply({ ...NFTABLES, networks: [V4, V6] });
    programs.load(
      'iptables',
      [
        '*nat',
        ':FLANNEL-POSTRTG - [0:0]',
        '-A POSTROUTING -o eth0 -j MASQUERADE',
        '-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG',
        '-A POSTROUTING -s 10.9.0.0/16 -d 10.9.0.0/16 -m comment --comment "flanneld masq" -j RETURN',
        'COMMIT',
        '',
      ].join('\n'),
    );
    const removed = await firewall.cleanup();
    assert.deepEqual(removed, [
      'iptables nat/FLANNEL-POSTRTG',
      'iptables nat/POSTROUTING -s 10.9.0.0/16 -d 10.9.0.0/16 -m comment --comment "flanneld masq" -j RETURN',
      'nft table ip flannel-ipv4',
      'nft table ip6 flannel-ipv6',
    ]);
    assert.deepEqual(chain('POSTROUTING'), ['-o eth0 -j MASQUERADE']);
    assert.deepEqual(await firewall.cleanup(), []);
  });

  it('tries everything before it reports that something could not be removed', async () => {
    await firewall.apply(NFTABLES);
    programs.failures.set('iptables-save', 'iptables-save: Permission denied');
    await assert.rejects(firewall.cleanup(), /cannot list the rules of iptables: .*Permission denied/);
    assert.equal(programs.nft.size, 0);
  });
});

describe('parseVersion', () => {
  it('tells the variants apart and knows what came with 1.6.2', () => {
    const cases: [text: string, variant: string, isModern: boolean][] = [
      ['iptables v1.4.21', 'legacy', false],
      ['iptables v1.6.1', 'legacy', false],
      ['iptables v1.6.2', 'legacy', true],
      ['iptables v1.8.9 (legacy)', 'legacy', true],
      ['iptables v1.8.9 (nf_tables)', 'nf_tables', true],
      ['ip6tables v1.10 (nf_tables)', 'nf_tables', true],
      ['iptables v2.0.0 (nf_tables)', 'nf_tables', true],
      ['nonsense', 'legacy', false],
    ];
    for (const [text, variant, isModern] of cases) assert.deepEqual(parseVersion(text), { variant, isModern }, text);
  });
});
