import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  FORWARD_CHAIN,
  KEEP_EVERYTHING,
  MASQUERADE_CHAIN,
  type RemovalScope,
  chainWords,
  formatWords,
  jumpWords,
  parseRule,
  parseSave,
  planRestore,
} from '../../../src/firewall/iptables-plan.js';
import { type FamilyRules, firewallRules } from '../../../src/firewall/rules.js';
import { net } from '../../support/builders.js';
import { dockerRules } from '../../support/docker-rules.js';
import { FakePrograms } from './fake-programs.js';

const NETWORK = net('10.5.0.0/16');
const V4 = { network: NETWORK, subnet: net('10.5.34.0/24') };
const V6 = { network: net('2001:db8:5::/48'), subnet: net('2001:db8:5:22::/64') };
const [rules4, rules6] = firewallRules({
  networks: [V4, V6],
  ipMasq: true,
  forwardRules: true,
  isFullyRandom: true,
}) as [FamilyRules, FamilyRules];
const NOTHING: FamilyRules = { family: 4, masquerade: [], forward: [] };
const EVERYTHING: RemovalScope = { unwantedChains: true, directRulesOf: [NETWORK], allCommentedDirectRules: false };

const textOf = (rules: FamilyRules, chain = MASQUERADE_CHAIN): string[] => chainWords(rules, chain).map(formatWords);

/** What flannel 0.12 to 0.19 wrote into the built-in chains, and with `comment: false` flannel 0.8 to 0.10. */
function directForm(options: { comment: boolean; network?: string; first?: string }): string {
  const { comment, network = '10.5.0.0/16', first = 'RETURN' } = options;
  const masq = comment ? ' -m comment --comment "flanneld masq"' : '';
  const forward = comment ? ' -m comment --comment "flanneld forward"' : '';
  return [
    '*nat',
    `-A POSTROUTING -s ${network} -d ${network}${masq} -j ${first}`,
    `-A POSTROUTING -s ${network} ! -d 224.0.0.0/4${masq} -j MASQUERADE --random-fully`,
    `-A POSTROUTING ! -s ${network} -d 10.5.34.0/24${masq} -j RETURN`,
    `-A POSTROUTING ! -s ${network} -d ${network}${masq} -j MASQUERADE --random-fully`,
    'COMMIT',
    '*filter',
    `-A FORWARD -s ${network}${forward} -j ACCEPT`,
    `-A FORWARD -d ${network}${forward} -j ACCEPT`,
    'COMMIT',
    '',
  ].join('\n');
}

class Host {
  readonly programs = new FakePrograms();

  constructor(...scripts: string[]) {
    for (const script of scripts) this.programs.load('iptables', script);
  }

  save(): string {
    return this.programs.save('iptables');
  }

  plan(rules: FamilyRules, scope = EVERYTHING) {
    return planRestore(parseSave(this.save()), rules, scope);
  }

  apply(rules: FamilyRules, scope = EVERYTHING) {
    const plan = this.plan(rules, scope);
    this.programs.load('iptables', plan.script);
    return plan;
  }

  rules(chain: string): readonly string[] {
    const table = ['FORWARD', 'FLANNEL-FWD', 'DOCKER-USER'].includes(chain) ? 'filter' : 'nat';
    return this.programs.rules('iptables', table, chain) ?? [];
  }
}

describe('iptables plan', () => {
  it('writes the rules of flannel word for word', () => {
    const comment = '-m comment --comment "flanneld masq"';
    assert.deepEqual(textOf(rules4), [
      `-m mark --mark 0x4000/0x4000 ${comment} -j RETURN`,
      `-s 10.5.34.0/24 -d 10.5.0.0/16 ${comment} -j RETURN`,
      `-s 10.5.0.0/16 -d 10.5.34.0/24 ${comment} -j RETURN`,
      `! -s 10.5.0.0/16 -d 10.5.34.0/24 ${comment} -j RETURN`,
      `-s 10.5.0.0/16 ! -d 224.0.0.0/4 ${comment} -j MASQUERADE --random-fully`,
      `! -s 10.5.0.0/16 -d 10.5.0.0/16 ${comment} -j MASQUERADE --random-fully`,
    ]);
    assert.deepEqual(textOf(rules6, FORWARD_CHAIN), [
      '-s 2001:db8:5::/48 -m comment --comment "flanneld forward" -j ACCEPT',
      '-d 2001:db8:5::/48 -m comment --comment "flanneld forward" -j ACCEPT',
    ]);
    assert.equal(formatWords(jumpWords(MASQUERADE_CHAIN)), `${comment} -j FLANNEL-POSTRTG`);
  });

  it('fills the chains and appends the jumps in one transaction for each table', () => {
    const host = new Host('*nat\n-A POSTROUTING -o eth0 -j SNAT --to-source 192.0.2.1\nCOMMIT\n');
    const { script, deviations } = host.apply(rules4);
    assert.deepEqual(script.match(/^(\*\w+|COMMIT)$/gm), ['*nat', 'COMMIT', '*filter', 'COMMIT']);
    assert.deepEqual(host.rules('FLANNEL-POSTRTG'), textOf(rules4));
    assert.deepEqual(host.rules('FLANNEL-FWD'), textOf(rules4, FORWARD_CHAIN));
    assert.deepEqual(host.rules('POSTROUTING').at(-1), formatWords(jumpWords(MASQUERADE_CHAIN)));
    assert.deepEqual(
      deviations.map(({ kind, object }) => `${kind} ${object}`),
      [
        'chain-missing nat/FLANNEL-POSTRTG',
        'jump-missing nat/FLANNEL-POSTRTG',
        'chain-missing filter/FLANNEL-FWD',
        'jump-missing filter/FLANNEL-FWD',
      ],
    );
  });

  it('has nothing to do once everything is in place', () => {
    const host = new Host();
    host.apply(rules4);
    const plan = host.plan(rules4);
    assert.deepEqual([plan.script, plan.deviations, plan.removals], ['', [], []]);
  });

  const damages: [name: string, script: string, kind: string][] = [
    [
      'a deleted rule',
      '*nat\n-D FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN\nCOMMIT',
      'chain-changed',
    ],
    ['a foreign rule in our chain', '*nat\n-A FLANNEL-POSTRTG -j ACCEPT\nCOMMIT', 'chain-changed'],
    ['a flushed chain', '*filter\n-F FLANNEL-FWD\nCOMMIT', 'chain-changed'],
    [
      'a deleted jump',
      '*filter\n-D FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD\nCOMMIT',
      'jump-missing',
    ],
    [
      'a second jump',
      '*nat\n-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG\nCOMMIT',
      'jump-duplicate',
    ],
    ['a flushed built-in chain', '*nat\n-F POSTROUTING\nCOMMIT', 'jump-missing'],
  ];
  for (const [name, damage, kind] of damages) {
    it(`repairs ${name}`, () => {
      const host = new Host();
      host.apply(rules4);
      const before = host.save();
      host.programs.load('iptables', `${damage}\n`);
      const { deviations } = host.apply(rules4, KEEP_EVERYTHING);
      assert.deepEqual(
        deviations.map((deviation) => deviation.kind),
        [kind],
      );
      assert.equal(host.save(), before);
    });
  }

  it('repairs rules that are all there in another order', () => {
    const host = new Host();
    host.apply(rules4);
    const before = host.save();
    const [first = ''] = textOf(rules4);
    host.programs.load('iptables', `*nat\n-D FLANNEL-POSTRTG ${first}\n-A FLANNEL-POSTRTG ${first}\nCOMMIT\n`);
    assert.deepEqual(
      host.apply(rules4, KEEP_EVERYTHING).deviations.map(({ kind }) => kind),
      ['chain-changed'],
    );
    assert.equal(host.save(), before);
  });

  it('leaves a jump where somebody moved it', () => {
    const host = new Host();
    host.apply(rules4);
    host.programs.load('iptables', '*nat\n-A POSTROUTING -o eth0 -j MASQUERADE\nCOMMIT\n');
    assert.equal(host.plan(rules4).script, '');
  });

  describe('beside Docker 28', () => {
    const OUR_JUMP = '-m comment --comment "flanneld forward" -j FLANNEL-FWD';

    it('comes before its drop through the chain that Docker keeps for others', () => {
      const host = new Host(dockerRules());
      const { deviations } = host.apply(rules4);
      assert.deepEqual(host.rules('DOCKER-USER'), [OUR_JUMP]);
      assert.deepEqual(host.rules('FORWARD').slice(0, 2), ['-j DOCKER-USER', '-j DOCKER-FORWARD']);
      assert.ok(deviations.some(({ object }) => object === 'filter/DOCKER-USER'));
      assert.equal(host.plan(rules4).script, '', 'once');
    });

    it('lets restrictions of the operator go first, and does not stand behind a RETURN', () => {
      const own = '*filter\n-A DOCKER-USER -s 10.5.9.0/24 -j DROP\n-A DOCKER-USER -j RETURN\nCOMMIT\n';
      const host = new Host(dockerRules(), own);
      host.apply(rules4);
      assert.deepEqual(host.rules('DOCKER-USER'), ['-s 10.5.9.0/24 -j DROP', OUR_JUMP, '-j RETURN']);
    });

    it('leaves the chain of an older Docker alone, which drops nothing of its own', () => {
      const host = new Host('*filter\n:DOCKER - [0:0]\n:DOCKER-USER - [0:0]\n-A DOCKER-USER -j RETURN\nCOMMIT\n');
      host.apply(rules4);
      assert.deepEqual(host.rules('DOCKER-USER'), ['-j RETURN']);
    });

    it('takes its jump out of the chain again', () => {
      const host = new Host(dockerRules());
      const before = host.save();
      host.apply(rules4);
      host.apply(NOTHING);
      assert.equal(host.save().replace(/\*nat\n(?::.*\n)*COMMIT\n/, ''), before);
    });
  });

  it('replaces the rules of a former subnet', () => {
    const host = new Host();
    const [before] = firewallRules({
      networks: [{ network: net('10.9.0.0/16'), subnet: net('10.9.1.0/24') }],
      ipMasq: true,
      forwardRules: true,
      isFullyRandom: false,
    }) as [FamilyRules];
    host.apply(before);
    host.apply(rules4);
    assert.doesNotMatch(host.save(), /10\.9\./);
  });

  for (const [release, script] of [
    ['0.11 to 0.19', directForm({ comment: true })],
    ['0.8 to 0.10', directForm({ comment: false })],
    ['0.5 to 0.7', directForm({ comment: false, first: 'ACCEPT' })],
  ] as const) {
    it(`takes over from flannel ${release}, which wrote into the built-in chains`, () => {
      const host = new Host(script);
      host.apply(rules4);
      assert.deepEqual(host.rules('POSTROUTING'), [formatWords(jumpWords(MASQUERADE_CHAIN))]);
      assert.deepEqual(host.rules('FORWARD'), [formatWords(jumpWords(FORWARD_CHAIN))]);
    });
  }

  it('keeps rules that look like those of old flannel but are of another network', () => {
    const host = new Host(directForm({ comment: true, network: '10.6.0.0/16' }));
    const before = host.rules('POSTROUTING').slice();
    host.apply(rules4);
    assert.deepEqual(host.rules('POSTROUTING').slice(0, -1), before);
  });

  it('keeps a single accept rule that an administrator wrote by hand', () => {
    const host = new Host(
      '*filter\n-A FORWARD -s 10.5.0.0/16 -j ACCEPT\n-A FORWARD -d 10.5.0.0/16 -j ACCEPT\nCOMMIT\n',
    );
    host.apply(rules4);
    assert.equal(host.rules('FORWARD').length, 3);
  });

  it('keeps rules with further matches even if they carry the comment of flannel', () => {
    const rule = '-s 10.5.0.0/16 -o eth9 -m comment --comment "flanneld forward" -j ACCEPT';
    const host = new Host(`*filter\n-A FORWARD ${rule}\nCOMMIT\n`);
    host.apply(NOTHING, { ...EVERYTHING, allCommentedDirectRules: true });
    assert.deepEqual(host.rules('FORWARD'), [rule]);
  });

  it('removes a chain from the table that a faulty clean-up of flannel left it in', () => {
    const host = new Host('*nat\n:FLANNEL-FWD - [0:0]\nCOMMIT\n');
    assert.deepEqual(host.apply(rules4).removals, ['nat/FLANNEL-FWD']);
    assert.deepEqual(host.apply(NOTHING).removals, ['nat/FLANNEL-POSTRTG', 'filter/FLANNEL-FWD']);
    assert.doesNotMatch(host.save(), /FLANNEL/);
  });

  it('empties a chain and says so when rules of others still jump to it', () => {
    const host = new Host();
    host.apply(rules4);
    host.programs.load('iptables', '*nat\n-A OUTPUT -j FLANNEL-POSTRTG\nCOMMIT\n');
    const plan = host.apply(NOTHING);
    assert.deepEqual(plan.stillReferenced, ['nat/FLANNEL-POSTRTG']);
    assert.deepEqual(host.rules('OUTPUT'), ['-j FLANNEL-POSTRTG']);
    assert.deepEqual(host.rules('FLANNEL-POSTRTG'), []);
    assert.deepEqual(host.rules('POSTROUTING'), []);
  });

  const foreignRule = fc
    .tuple(
      fc.constantFrom('nat POSTROUTING', 'filter FORWARD', 'filter INPUT', 'nat OUTPUT', 'filter DOCKER'),
      fc.constantFrom(
        '-o eth0 -j MASQUERADE',
        '-s 10.5.0.0/16 -j ACCEPT',
        '-s 10.5.0.0/16 -d 10.5.0.0/16 -j RETURN',
        '! -s 10.5.0.0/16 -d 10.5.0.0/16 -j MASQUERADE',
        '-s 10.5.0.0/16 -o flannel.1 -m comment --comment "flanneld masq" -j RETURN',
        '-m comment --comment "it\'s \\"quoted\\"" -j DROP',
        '-p tcp -m tcp --dport 80 -j REJECT',
      ),
    )
    .map(([chain, rule]) => ({ chain, rule }));

  it('takes away what it added and touches nothing of others, whatever is there', () => {
    fc.assert(
      fc.property(fc.array(foreignRule, { maxLength: 12 }), fc.boolean(), (foreign, isMasq) => {
        const host = new Host('*nat\nCOMMIT\n*filter\n:DOCKER - [0:0]\nCOMMIT\n');
        for (const { chain, rule } of foreign) {
          const [table = '', name = ''] = chain.split(' ');
          host.programs.load('iptables', `*${table}\n-A ${name} ${rule}\nCOMMIT\n`);
        }
        const before = host.save();
        const wanted = isMasq ? rules4 : { ...rules4, masquerade: [] };
        host.apply(wanted);
        assert.equal(host.plan(wanted).script, '');
        host.apply(NOTHING);
        assert.equal(host.save(), before);
      }),
    );
  });
});

describe('parseRule', () => {
  it('takes negation with the option that follows it', () => {
    const rule = parseRule(['!', '-s', '10.5.0.0/16', '-d', '10.5.1.1/32', '-j', 'MASQUERADE', '--random-fully']);
    assert.deepEqual(rule.source, { prefix: NETWORK, isNegated: true });
    assert.deepEqual(rule.destination, { prefix: net('10.5.1.1/32'), isNegated: false });
    assert.equal(rule.target, 'MASQUERADE');
    assert.equal(rule.hasOther, false);
  });

  it('reports whatever else a rule has', () => {
    for (const words of [
      ['-o', 'eth0'],
      ['-p', 'tcp'],
      ['-m', 'mark'],
      ['-i', '-j'],
      ['-s', 'a.b.c.d'],
    ]) {
      assert.equal(parseRule([...words, '-j', 'ACCEPT']).hasOther, true, words.join(' '));
    }
  });
});

describe('parseSave', () => {
  it('reads comments with blanks, quotes and backslashes as one word, and writes them back', () => {
    fc.assert(
      fc.property(
        fc.string({ minLength: 1, maxLength: 40, unit: fc.constantFrom('a', ' ', '"', '\\', "'", '-') }),
        (comment) => {
          const words = ['-m', 'comment', '--comment', comment, '-j', 'ACCEPT'];
          const saved = parseSave(`*filter\n:FORWARD DROP [1:2]\n-A FORWARD ${formatWords(words)}\nCOMMIT\n`);
          assert.deepEqual(saved.rules.get('filter')?.get('FORWARD'), [words]);
          assert.equal(saved.policies.get('filter/FORWARD'), 'DROP');
        },
      ),
    );
  });

  it('passes over comments and tables that iptables-nft cannot show', () => {
    const saved = parseSave("# Generated by iptables-nft-save\n# Table `foo' is incompatible, use 'nft' tool.\n\n");
    assert.equal(saved.rules.size, 0);
  });
});
