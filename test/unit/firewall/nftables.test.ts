import assert from 'node:assert/strict';
import { parseListing } from '../../../src/firewall/nft-listing.js';
import { Nftables, tableScript } from '../../../src/firewall/nftables.js';
import { type FamilyRules, firewallRules } from '../../../src/firewall/rules.js';
import { isOverlayError } from '../../../src/errors.js';
import { net } from '../../support/builders.js';
import { RecordingLogger } from '../../support/recorder.js';
import { FakePrograms } from './fake-programs.js';

const V4 = { network: net('10.5.0.0/16'), subnet: net('10.5.34.0/24') };
const V6 = { network: net('2001:db8:5::/48'), subnet: net('2001:db8:5:22::/64') };
const rules = firewallRules({ networks: [V4, V6], ipMasq: true, forwardRules: true, isFullyRandom: true });
const [rules4, rules6] = rules as [FamilyRules, FamilyRules];

describe('Nftables', () => {
  let programs: FakePrograms;
  let log: RecordingLogger;
  let nftables: Nftables;

  beforeEach(() => {
    programs = new FakePrograms(['nft']);
    log = new RecordingLogger();
    nftables = new Nftables(programs.run, log);
  });

  const texts = (table: string, chain: string): string[] =>
    (programs.nft.get(table)?.chains.find(({ name }) => name === chain)?.rules ?? []).map(({ text }) => text);

  it('writes the tables of both families in one transaction', async () => {
    await nftables.put(rules);
    assert.equal(programs.writes().length, 1);
    assert.deepEqual([...programs.nft.keys()], ['ip flannel-ipv4', 'ip6 flannel-ipv6']);
    assert.deepEqual(
      texts('ip flannel-ipv4', 'postrtg').map((text) => text.replace(/ comment ".*"$/, '')),
      [
        'meta mark & 0x4000 == 0x4000 return',
        'ip saddr 10.5.34.0/24 ip daddr 10.5.0.0/16 return',
        'ip saddr 10.5.0.0/16 ip daddr 10.5.34.0/24 return',
        'ip saddr != 10.5.0.0/16 ip daddr 10.5.34.0/24 return',
        'ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random',
        'ip saddr != 10.5.0.0/16 ip daddr 10.5.0.0/16 masquerade fully-random',
      ],
    );
    assert.equal(texts('ip6 flannel-ipv6', 'forward')[0], 'ip6 saddr 2001:db8:5::/48 accept comment "from containers"');
  });

  it('makes only the chains that are wanted', () => {
    assert.doesNotMatch(tableScript({ ...rules4, masquerade: [] }), /postrtg/);
    assert.doesNotMatch(tableScript({ ...rules6, forward: [] }), /hook forward/);
  });

  it('finds nothing to repair after its own write', async () => {
    await nftables.put(rules);
    assert.deepEqual(await nftables.check(rules), []);
    assert.equal(programs.writes().length, 1);
  });

  const damages: [name: string, damage: (programs: FakePrograms) => void, kind: string][] = [
    ['a deleted table', ({ nft }) => nft.delete('ip flannel-ipv4'), 'table-missing'],
    ['a deleted rule', ({ nft }) => nft.get('ip flannel-ipv4')?.chains[1]?.rules.pop(), 'table-changed'],
    ['rules in another order', ({ nft }) => nft.get('ip flannel-ipv4')?.chains[1]?.rules.reverse(), 'table-changed'],
    [
      'a rule that was replaced by one that reads the same',
      ({ nft }) => {
        const list = nft.get('ip flannel-ipv4')!.chains[1]!.rules;
        list.push({ ...list.pop()!, handle: 999 });
      },
      'table-changed',
    ],
  ];
  for (const [name, damage, kind] of damages) {
    it(`repairs ${name}`, async () => {
      await nftables.put(rules);
      const before = texts('ip flannel-ipv4', 'postrtg');
      damage(programs);
      assert.deepEqual(await nftables.check(rules), [{ kind, object: 'ip flannel-ipv4' }]);
      assert.deepEqual(texts('ip flannel-ipv4', 'postrtg'), before);
      assert.deepEqual(await nftables.check(rules), []);
    });
  }

  it('does not take for its own what somebody changed between writing and listing', async () => {
    const run = programs.run;
    let isFirstWrite = true;
    const racing = new Nftables(async (program, args, stdin) => {
      const result = await run(program, args, stdin);
      if (args[0] === '-f' && isFirstWrite) {
        isFirstWrite = false;
        programs.nft.get('ip flannel-ipv4')?.chains[1]?.rules.pop();
      }
      return result;
    }, log);
    await racing.put(rules);
    assert.equal((await racing.check(rules)).length, 1);
    assert.equal(texts('ip flannel-ipv4', 'postrtg').length, 6);
    assert.deepEqual(await racing.check(rules), []);
  });

  it('masquerades without random ports where nft does not know them', async () => {
    programs.knowsFullyRandom = false;
    await nftables.put(rules);
    assert.match(texts('ip flannel-ipv4', 'postrtg')[4] ?? '', /masquerade comment/);
    assert.equal(log.find(/not random/).length, 1);
    assert.deepEqual(await nftables.check(rules), []);
  });

  it('reports what nft said about the wanted form when neither form is accepted', async () => {
    programs.failures.set('nft', 'Error: Operation not permitted');
    await assert.rejects(nftables.put(rules), (error: unknown) => {
      assert(isOverlayError(error, 'ERR_FIREWALL'));
      assert.match(error.message, /^cannot write the rules of nft: nft ended with 1: Error: Operation not permitted$/);
      return true;
    });
  });

  it('names the package when nft is missing', async () => {
    programs.installed.clear();
    await assert.rejects(
      nftables.put(rules),
      (error: unknown) => isOverlayError(error, 'ERR_FIREWALL') && error.hint === 'install the package nftables',
    );
    assert.deepEqual(await nftables.remove([4, 6]), []);
  });

  it('removes its tables and no others', async () => {
    await nftables.put([rules4]);
    programs.nft.set('ip nat', { handle: 77, chains: [] });
    assert.deepEqual(await nftables.remove([4, 6]), ['nft table ip flannel-ipv4']);
    assert.deepEqual([...programs.nft.keys()], ['ip nat']);
    assert.deepEqual(await nftables.remove([4, 6]), []);
  });

  it('rejects a listing that is not JSON', () => {
    assert.throws(
      () => parseListing('table ip x {}'),
      (error: unknown) => isOverlayError(error, 'ERR_FIREWALL'),
    );
    assert.deepEqual(parseListing('{"other":1}').comments, []);
  });
});
