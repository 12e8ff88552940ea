import assert from 'node:assert/strict';
import { parseSave } from '../../../../src/firewall/iptables-plan.js';
import { iptablesRuleset } from '../../../../src/firewall/trace/iptables-ruleset.js';
import { nftRuleset } from '../../../../src/firewall/trace/nft-ruleset.js';
import { type OverlayPaths, describeObstacle, traceOverlay } from '../../../../src/firewall/trace/overlay-trace.js';
import type { TracedTable } from '../../../../src/firewall/trace/ruleset.js';
import { ip, net } from '../../../support/builders.js';
import { dockerRules } from '../../../support/docker-rules.js';

const PATHS: OverlayPaths = {
  network: net('10.5.0.0/16'),
  subnet: net('10.5.1.0/24'),
  peerSubnet: net('10.5.2.0/24'),
  bridge: 'docker0',
  overlayDevice: 'flannel.1',
  underlayDevice: 'eth0',
  carrier: { protocol: 'udp', port: 8472, own: ip('192.0.2.1'), peer: ip('192.0.2.2') },
};

const iptables = (...lines: readonly string[]): readonly TracedTable[] =>
  iptablesRuleset(parseSave(lines.join('\n')), 'iptables');

/** A filter table with these rules besides empty built-in chains. */
const filter = (...rules: readonly string[]): readonly TracedTable[] =>
  iptables('*filter', ':INPUT ACCEPT', ':FORWARD ACCEPT', ':OUTPUT ACCEPT', ...rules, 'COMMIT');

/** Rules of flannel and of ours, and the jump to them. */
const OUR_CHAIN = [
  ':FLANNEL-FWD - [0:0]',
  '-A FLANNEL-FWD -s 10.5.0.0/16 -j ACCEPT',
  '-A FLANNEL-FWD -d 10.5.0.0/16 -j ACCEPT',
];

/** One line for each obstacle: the flow, and where it stands. */
const obstacles = (tables: readonly TracedTable[], changes: Partial<OverlayPaths> = {}): readonly string[] =>
  traceOverlay(tables, { ...PATHS, ...changes }).map((found) => `${found.flow} | ${describeObstacle(found)}`);

const remedies = (tables: readonly TracedTable[]): readonly string[] =>
  traceOverlay(tables, PATHS).map(({ remedy }) => remedy);

/** What `nft -j list ruleset` prints for one table with one base chain. */
function nft(options: {
  readonly family?: string;
  readonly hook?: object;
  readonly rules?: readonly (readonly object[])[];
  readonly more?: readonly object[];
}): readonly TracedTable[] {
  const { family = 'inet', hook = { hook: 'forward', prio: 10, policy: 'accept' }, rules = [], more = [] } = options;
  const chain = { family, table: 'fw', name: 'base' };
  const listed = rules.map((expr, index) => ({
    rule: { family, table: 'fw', chain: 'base', handle: index + 5, expr },
  }));
  return nftRuleset(
    JSON.stringify({
      nftables: [{ table: { family, name: 'fw' } }, { chain: { ...chain, ...hook } }, ...more, ...listed],
    }),
  );
}

const match = (left: object, right: unknown, op = '=='): object => ({ match: { op, left, right } });
const payload = (protocol: string, field: string): object => ({ payload: { protocol, field } });
const meta = (key: string): object => ({ meta: { key } });
const DROP = { drop: null };
const REJECT = { reject: { type: 'icmpx', expr: 'admin-prohibited' } };

describe('traceOverlay', () => {
  it('finds nothing where nothing drops', () => {
    assert.deepEqual(obstacles(filter()), []);
    assert.deepEqual(obstacles([]), []);
  });

  describe('in iptables', () => {
    it('finds the policy of a chain, unless a rule accepts before', () => {
      const policy = ['*filter', ':FORWARD DROP [0:0]'];
      assert.deepEqual(obstacles(iptables(...policy)), [
        'containers-out | table filter (iptables), chain FORWARD: its policy for what no rule accepts is to drop',
      ]);
      assert.deepEqual(remedies(iptables(...policy)), [
        'iptables -A FORWARD -s 10.5.0.0/16 -j ACCEPT && iptables -A FORWARD -d 10.5.0.0/16 -j ACCEPT',
      ]);
      assert.deepEqual(obstacles(iptables(...policy, ...OUR_CHAIN, '-A FORWARD -j FLANNEL-FWD')), []);
    });

    it('follows jumps, returns and gotos in their order', () => {
      const [found, ...more] = obstacles(
        filter(
          ':a - [0:0]',
          ':b - [0:0]',
          '-A FORWARD -j a',
          '-A FORWARD -j ACCEPT',
          '-A a -i eth9 -j DROP',
          '-A a -g b',
          '-A a -j ACCEPT',
          '-A b -s 10.6.0.0/16 -j RETURN',
          '-A b -d 10.5.0.0/16 -j REJECT',
        ),
      );
      assert.match(found ?? '', /chain b, jumped to from forward, rule 2: -d 10\.5\.0\.0\/16 -j REJECT$/);
      assert.deepEqual(more, []);
      assert.deepEqual(
        obstacles(
          filter(':a - [0:0]', '-A FORWARD -j a', '-A a -s 10.5.1.0/24 -j RETURN', '-A a -j DROP', '-A a -j ACCEPT'),
        ).map((text) => text.slice(0, 13)),
        ['containers-in'],
      );
    });

    for (const rule of [
      '-i eth9 -j DROP',
      '! -i docker0 ! -o docker0 -j DROP',
      '-s 172.17.0.0/16 -j DROP',
      '! -d 10.5.0.0/16 -j DROP',
      '-p icmp -j DROP',
      '-m conntrack --ctstate INVALID -j DROP',
      '-p tcp -m tcp --dport 25 -j DROP',
      '-m mark --mark 0x1/0x1 -j DROP',
      '-m addrtype --dst-type LOCAL -j DROP',
      '-m set --match-set blocked src -j DROP',
      '-m limit --limit 10/sec -j DROP',
      '-j LOG --log-prefix "DROP "',
    ]) {
      it(`does not blame ${rule}`, () => {
        assert.deepEqual(obstacles(filter(`-A FORWARD ${rule}`)), []);
      });
    }

    for (const rule of [
      '-j DROP',
      '-o flannel+ -j REJECT --reject-with icmp-port-unreachable',
      '! -s 172.17.0.0/16 -j DROP',
      '-m conntrack --ctstate NEW,INVALID -j DROP',
      '-p udp -j DROP',
      '! -i eth0 -m comment --comment "no -j ACCEPT here" -j DROP',
      '-m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP',
      '-m mark --mark 0x0/0xff -j DROP',
    ]) {
      it(`blames ${rule}`, () => {
        assert.equal(obstacles(filter(`-A FORWARD ${rule}`)).length, 1);
      });
    }

    it('finds the drop of Docker 28 behind its own jumps, and is content once its chain for others leads to ours', () => {
      const docker = dockerRules().replaceAll('-I FORWARD', '-A FORWARD').split('\n');
      const own = [...docker.slice(0, -2), ...OUR_CHAIN, '-A FORWARD -j FLANNEL-FWD'];
      own[own.indexOf('-A FORWARD -j DOCKER-FORWARD')] = '-A FORWARD -j DOCKER-USER';
      own[own.lastIndexOf('-A FORWARD -j DOCKER-USER')] = '-A FORWARD -j DOCKER-FORWARD';
      assert.deepEqual(obstacles(iptables(...own)), [
        'containers-in | table filter (iptables), chain DOCKER, jumped to from forward, rule 1: ! -i docker0 -o docker0 -j DROP',
      ]);
      assert.deepEqual(obstacles(iptables(...own, '-A DOCKER-USER -j FLANNEL-FWD')), []);
    });

    it('finds what Docker 28 drops by the addresses of containers, before routing', () => {
      const raw = iptables('*raw', ':PREROUTING ACCEPT [0:0]', '-A PREROUTING -d 10.5.1.77/32 ! -i docker0 -j DROP');
      assert.deepEqual(remedies(raw), [
        'iptables -t raw -I PREROUTING 1 -s 10.5.0.0/16 -j ACCEPT && iptables -t raw -I PREROUTING 1 -d 10.5.0.0/16 -j ACCEPT',
      ]);
    });

    it('finds the drop of ufw behind five jumps', () => {
      const ufw = ['before-forward', 'after-forward', 'reject-forward', 'user-forward'].map((name) => `ufw-${name}`);
      const found = obstacles(
        filter(
          ...ufw.map((chain) => `:${chain} - [0:0]`),
          ...ufw.slice(0, 3).map((chain) => `-A FORWARD -j ${chain}`),
          '-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
          '-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT',
          '-A ufw-before-forward -j ufw-user-forward',
          '-A ufw-reject-forward -j REJECT --reject-with icmp-port-unreachable',
        ),
      );
      assert.match(found[0] ?? '', /chain ufw-reject-forward, jumped to from forward, rule 1/);
    });

    it("finds what stops the backend's own datagrams, and lets exactly these through", () => {
      const input = [
        '*filter',
        ':INPUT DROP [0:0]',
        '-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
        '-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT',
      ];
      assert.deepEqual(remedies(iptables(...input)), ['iptables -A INPUT -p udp --dport 8472 -j ACCEPT']);
      assert.deepEqual(remedies(iptables(...input, '-A INPUT -p udp -m udp --dport 8472 -j ACCEPT')), []);
      assert.deepEqual(
        remedies(iptables(...input, '-A INPUT -p udp -m multiport --dports 53,8000:9000 -j ACCEPT')),
        [],
      );
      const output = iptables('*filter', ':OUTPUT ACCEPT [0:0]', '-A OUTPUT -d 192.0.2.0/24 -p udp -j DROP');
      assert.deepEqual(remedies(output), ['iptables -I OUTPUT 1 -p udp --dport 8472 -j ACCEPT']);
    });
  });

  describe('in nftables', () => {
    it('names table, chain and handle of what rejects at a later priority, whatever iptables accepts', () => {
      const tables = [
        ...iptables('*filter', ':FORWARD DROP [0:0]', ...OUR_CHAIN, '-A FORWARD -j FLANNEL-FWD'),
        ...nft({ rules: [[match(meta('iifname'), 'lo'), { accept: null }], [REJECT]] }),
      ];
      assert.deepEqual(obstacles(tables), [
        'containers-out | table inet fw (nft), chain base, handle 6: reject with icmpx admin-prohibited',
      ]);
      assert.deepEqual(remedies(tables), [
        'nft insert rule inet fw base handle 6 ip saddr 10.5.0.0/16 accept && nft insert rule inet fw base handle 6 ip daddr 10.5.0.0/16 accept',
      ]);
    });

    it('finds the policy of a base chain of any hook', () => {
      for (const hook of ['prerouting', 'forward', 'postrouting']) {
        const tables = nft({ family: 'ip', hook: { hook, prio: -300, policy: 'drop' } });
        assert.match(remedies(tables)[0] ?? '', /^nft add rule ip fw base ip saddr 10\.5\.0\.0\/16 accept && /);
      }
    });

    it('looks at the chains of a device', () => {
      const hook = { hook: 'ingress', prio: 0, policy: 'accept', dev: 'eth0' };
      const rules = [[match(payload('udp', 'dport'), 8472), DROP]];
      assert.deepEqual(remedies(nft({ family: 'netdev', hook, rules })), [
        'nft insert rule netdev fw base handle 5 udp dport 8472 accept',
      ]);
      assert.deepEqual(remedies(nft({ family: 'netdev', hook: { ...hook, dev: 'eth1' }, rules })), []);
    });

    const PASSED: readonly (readonly [string, readonly object[]])[] = [
      ['another network', [match(payload('ip', 'saddr'), { prefix: { addr: '172.17.0.0', len: 16 } }), DROP]],
      [
        'everything but a range with the overlay',
        [match(payload('ip', 'saddr'), { range: ['10.5.0.0', '10.6.0.0'] }, '!='), DROP],
      ],
      ['IPv6', [match(payload('ip6', 'daddr'), '::1', '!='), DROP]],
      ['IPv6 by its number', [match(meta('nfproto'), 'ipv6'), DROP]],
      ['other devices', [match(meta('oifname'), { set: ['eth*', 'wg0'] }), DROP]],
      ['what is known to be invalid', [match({ ct: { key: 'state' } }, 'invalid', 'in'), DROP]],
      ['other marks', [match({ '&': [meta('mark'), 1] }, 1), DROP]],
      ['local addresses', [match({ fib: { result: 'type', flags: ['daddr'] } }, 'local'), DROP]],
      ['ports that no sample has', [match(payload('tcp', 'dport'), 25), DROP]],
      ['what exceeds a rate', [{ limit: { rate: 10, per: 'second' } }, DROP]],
      ['what a module of iptables matches', [{ xt: { type: 'match', name: 'string' } }, DROP]],
      ['a set that does not have it', [match(payload('ip', 'daddr'), '@some'), DROP]],
    ];
    const more = [
      { set: { family: 'inet', table: 'fw', name: 'some', elem: [{ prefix: { addr: '10.9.0.0', len: 16 } }] } },
    ];
    for (const [what, rule] of PASSED) {
      it(`does not blame a drop of ${what}`, () => {
        assert.deepEqual(obstacles(nft({ rules: [rule], more })), []);
      });
    }

    const DROPPED: readonly (readonly [string, readonly object[]])[] = [
      [
        'the overlay',
        [match(payload('ip', 'saddr'), { prefix: { addr: '10.5.0.0', len: 16 } }), { counter: null }, DROP],
      ],
      ['a set that has it', [match(payload('ip', 'daddr'), '@all'), DROP]],
      ['devices by a pattern', [match(meta('oifname'), { set: ['br*', 'flannel*'] }), REJECT]],
      ['new connections', [match({ ct: { key: 'state' } }, { set: ['new', 'invalid'] }), DROP]],
      ['all that is not IPv6', [match(meta('nfproto'), 'ipv6', '!='), DROP]],
      ['what a map leads to', [{ vmap: { key: meta('iifname'), data: { set: [['docker0', DROP]] } } }]],
      ['what Docker did not translate', [match({ ct: { key: 'status' } }, 'dnat', '!='), DROP]],
    ];
    const all = [
      { set: { family: 'inet', table: 'fw', name: 'all', elem: [{ prefix: { addr: '10.0.0.0', len: 8 } }] } },
    ];
    for (const [what, rule] of DROPPED) {
      it(`blames a drop of ${what}`, () => {
        assert.equal(obstacles(nft({ rules: [rule], more: all })).length, 1);
      });
    }

    it('says what is wrong with a listing that is none', () => {
      assert.throws(() => nftRuleset('nonsense'), { code: 'ERR_FIREWALL' });
    });
  });
});
