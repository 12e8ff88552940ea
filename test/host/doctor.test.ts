import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { dockerRules } from '../support/docker-rules.js';
import { Operator } from '../support/operator.js';
import { type Container, type Host, Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { ping } from '../support/traffic.js';
import { eventually, waitFor } from '../support/wait.js';

const NETWORK = { Network: '10.5.0.0/16' };

/** A fault as somebody makes it, and what the doctor has to call it. */
interface Fault {
  readonly name: string;
  readonly check: string;
  /** Host that has the fault, and is asked. */
  readonly on: 1 | 2;
  /** `nft -f -`, or a shell script in the host's namespace. */
  readonly make: { readonly nft: string } | { readonly shell: string };
  /** What the remedy has to name. */
  readonly command: RegExp;
  /** Whether containers are cut off until it is fixed. Default true. */
  readonly cutsContainers?: boolean;
  /** Undoes what the remedy leaves, which is an exception besides the fault. */
  readonly clear: string;
}

const FAULTS: readonly Fault[] = [
  {
    name: 'a table of its own that drops the overlay',
    check: 'forward-rules',
    on: 1,
    make: {
      nft: 'table ip guard {\nchain ahead {\ntype filter hook forward priority -5; policy accept;\nip saddr 10.5.0.0/16 drop\n}\n}',
    },
    command: /^nft insert rule ip guard ahead handle \d+ ip saddr 10\.5\.0\.0\/16 accept && /,
    clear: 'nft delete table ip guard',
  },
  {
    name: 'firewalld, which rejects what no zone accepts at another priority',
    check: 'forward-rules',
    on: 2,
    make: {
      nft: [
        'table inet firewalld {',
        'chain filter_FORWARD_POLICIES {\niifname "lo" accept\nreject with icmpx admin-prohibited\n}',
        'chain filter_FORWARD {\ntype filter hook forward priority filter + 10; policy accept;',
        'ct state { established, related } accept\nct status dnat accept\nct state invalid drop',
        'ip6 daddr { ::/96, ::ffff:0:0/96 } reject with icmpv6 addr-unreachable\njump filter_FORWARD_POLICIES\n}\n}',
      ].join('\n'),
    },
    command: /^nft insert rule inet firewalld filter_FORWARD_POLICIES handle \d+ /,
    clear: 'nft delete table inet firewalld',
  },
  {
    name: 'a drop in raw, before routing',
    check: 'overlay-rules',
    on: 2,
    make: {
      shell:
        'iptables -t raw -A PREROUTING -d 10.5.0.0/16 -i flannel.1 -p tcp -j ACCEPT; iptables -t raw -A PREROUTING -d 10.5.0.0/16 -m comment --comment "no way" -j DROP',
    },
    command: /^iptables -t raw -I PREROUTING 2 -s 10\.5\.0\.0\/16 -j ACCEPT && /,
    clear: 'iptables -t raw -F',
  },
  {
    name: 'ufw, whose chains stand before ours',
    check: 'forward-rules',
    on: 1,
    make: {
      shell:
        'iptables -N ufw-before-forward; iptables -N ufw-user-forward; iptables -I FORWARD -j ufw-before-forward; ' +
        'iptables -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; ' +
        'iptables -A ufw-before-forward -j ufw-user-forward; iptables -A ufw-user-forward -j REJECT',
    },
    command: /^iptables -I ufw-user-forward 1 /,
    clear: 'iptables -D FORWARD -j ufw-before-forward; iptables -F ufw-before-forward; iptables -F ufw-user-forward',
  },
  {
    name: 'an iptables-legacy beside the iptables in use',
    check: 'forward-rules',
    on: 1,
    make: { shell: 'iptables-legacy -P FORWARD DROP' },
    command: /^iptables-legacy -A FORWARD -s 10\.5\.0\.0\/16 -j ACCEPT && /,
    clear: 'iptables-legacy -P FORWARD ACCEPT; iptables-legacy -F FORWARD',
  },
  {
    name: "an INPUT that drops the backend's datagrams",
    check: 'overlay-rules',
    on: 2,
    make: { shell: 'iptables -A INPUT -p udp -m udp --dport 8000:9000 -j DROP' },
    command: /^iptables -I INPUT 1 -p udp --dport 8472 -j ACCEPT/,
    clear: 'iptables -F INPUT',
  },
  {
    name: 'a rule of policy routing that takes the overlay elsewhere',
    check: 'diverted',
    on: 1,
    make: { shell: 'ip route add default via 192.0.2.1 table 100; ip rule add pref 100 from all lookup 100' },
    command: /^ip rule add pref 99 to 10\.5\.0\.0\/16 lookup main/,
    clear: 'ip rule del pref 99; ip rule del pref 100; ip route flush table 100',
  },
  {
    name: 'a rule of policy routing for containers only',
    check: 'diverted',
    on: 2,
    make: { shell: 'ip rule add pref 50 iif docker0 to 10.5.0.0/16 blackhole' },
    command: /^ip rule add pref 49 to 10\.5\.0\.0\/16 lookup main/,
    clear: 'ip rule del pref 49; ip rule del pref 50',
  },
];

describe('tsflannelctl doctor, its findings and their remedies', function () {
  this.timeout(180_000);
  let rig: Rig;
  let containers: Container[] = [];
  let operators: readonly Operator[] = [];

  const host = (number: number): Host => rig.host(number);

  before(async function () {
    if (process.getuid?.() !== 0) skipBecause(this, 'network namespaces need root');
    rig = await Rig.create({ hosts: 2 });
    await rig.putConfig({ ...NETWORK, Backend: { Type: 'vxlan' } });
    for (const each of rig.hosts) await each.startDaemon();
    containers = [];
    for (const each of rig.hosts) {
      containers.push(await each.addContainer());
      // Nobody has to wait 3 s until the bridge has given an address up, as the doctor does in each run.
      await each.netns.run(['sysctl', '-qw', 'net.ipv4.neigh.docker0.retrans_time_ms=100']);
    }
    operators = rig.hosts.map((each) => new Operator(each));
    await flows();
  });

  after(() => rig.close());

  const at = (on: Host): Operator => {
    const operator = operators[rig.hosts.indexOf(on)];
    assert.ok(operator);
    return operator;
  };

  const reaches = async (): Promise<boolean> => {
    const [from, to] = containers;
    assert.ok(from && to);
    return (await ping(from.netns, to.address, { count: 1, waitSeconds: 1 })).received === 1;
  };

  /** Containers reach each other, and neither host's doctor has anything to say. */
  async function flows(): Promise<void> {
    await waitFor(reaches, { what: 'an answer from container to container' });
    const found = await Promise.all(rig.hosts.map((each) => at(each).serious()));
    assert.deepEqual(found, [[], []], 'each host is well');
  }

  for (const fault of FAULTS) {
    it(`names ${fault.name}, and its remedy fixes it`, async () => {
      const on = host(fault.on);
      if ('nft' in fault.make) await on.netns.run(['nft', '-f', '-'], { input: `${fault.make.nft}\n` });
      else await on.netns.run(['sh', '-ec', fault.make.shell]);
      try {
        assert.equal(await reaches(), fault.cutsContainers === false);
        const finding = await at(on).onlyFinding();
        assert.equal(finding.check, fault.check, JSON.stringify(finding));
        assert.match(finding.command, fault.command);
        await at(on).type(finding.command);
        await flows();
      } finally {
        await on.netns.run(['sh', '-c', fault.clear]);
      }
    });
  }

  it('finds the way to a fault on the other host: its FORWARD', async () => {
    await host(2).netns.run(['iptables', '-I', 'FORWARD', '-i', 'flannel.1', '-j', 'DROP']);
    try {
      const here = await at(host(1)).onlyFinding();
      assert.equal(here.check, 'far-forward', JSON.stringify(here));
      assert.equal(here.command, `tsflannelctl doctor # on ${host(2).publicIp}`);
      const there = await at(host(2)).onlyFinding();
      assert.equal(there.check, 'forward-rules');
      await at(host(2)).type(there.command);
      await flows();
    } finally {
      await host(2).netns.run(['iptables', '-D', 'FORWARD', '-i', 'flannel.1', '-j', 'DROP']);
    }
  });

  it('finds the other host whose device answers and whose containers do not: its bridge', async () => {
    const gateway = host(2).daemon?.subnetEnv().FLANNEL_SUBNET ?? '';
    await host(2).netns.ip([`addr del ${gateway} dev docker0`, 'addr add 172.17.0.1/16 dev docker0']);
    // There is no Docker here whose unit the command could change; removal.test.ts has one.
    at(host(2)).shim('tsflannelctl', `[ "$*" = 'docker enable' ] || ${at(host(2)).tsflannelctl}`);
    const here = await at(host(1)).onlyFinding();
    assert.equal(here.check, 'far-bridge', JSON.stringify(here));
    assert.equal(here.command, `tsflannelctl doctor # on ${host(2).publicIp}`);
    const there = await at(host(2)).onlyFinding();
    assert.equal(there.check, 'docker-bridge');
    await at(host(2)).typeWithService(there.command, 'restart docker', () =>
      host(2).netns.ip(['addr flush dev docker0', `addr add ${gateway} dev docker0`]),
    );
    await flows();
  });

  it('names an invalid backend in the configuration, and puts the last valid one back', async () => {
    await rig.putConfig({ ...NETWORK, Backend: { Type: 'teleport' } });
    const finding = await at(host(1)).onlyFinding();
    assert.equal(finding.check, 'config');
    assert.match(finding.evidence, /teleport/);
    await at(host(1)).type(finding.command);
    await eventually('the daemons to take it', async () => {
      for (const { daemon } of rig.hosts) assert.equal((await daemon?.status())?.network?.rejected, null);
    });
    await flows();
  });

  it('names a lease of others inside the own subnet, and releases it', async () => {
    const [, third = ''] = /^10\.5\.(\d+)\./.exec(host(1).daemon?.subnetEnv().FLANNEL_SUBNET ?? '') ?? [];
    const value = { PublicIP: '192.0.2.77', BackendType: 'host-gw' };
    await rig.etcd.put(`${rig.etcdPrefix}/subnets/10.5.${third}.128-25`, JSON.stringify(value));
    const finding = await at(host(1)).onlyFinding();
    assert.equal(finding.check, 'lease-overlap', JSON.stringify(finding));
    assert.equal(finding.command, `tsflannelctl leases release 10.5.${third}.128-25`);
    await at(host(1)).type(finding.command);
    await eventually('the daemons to hear of it', async () => {
      for (const { daemon } of rig.hosts) assert.deepEqual((await daemon?.status())?.peerSet.quarantined, []);
    });
    await flows();
  });

  it('names what Docker 28 drops by the addresses of containers, and lets the overlay through', async () => {
    const rules = dockerRules({ containers: [containers[1]?.address ?? ''] });
    await host(2).netns.run(['iptables-restore', '--noflush'], { input: rules });
    try {
      const finding = await waitFor(
        async () => {
          const found = await at(host(2)).serious();
          // Our jump in DOCKER-USER follows at the next look.
          return found.length === 1 && found[0];
        },
        { what: 'one finding', timeoutMs: 60_000 },
      );
      assert.equal(finding.check, 'overlay-rules');
      assert.match(finding.command, /^iptables -t raw -I PREROUTING 1 .* # until .*--allow-direct-routing$/);
      assert.equal(await reaches(), false);
      await at(host(2)).type(finding.command);
      await flows();
    } finally {
      await host(2).netns.run(['sh', '-c', 'iptables -t raw -F; iptables -P FORWARD ACCEPT; iptables -F FORWARD']);
    }
  });

  it('names two hosts with one public address, and gives the second its own', async () => {
    await host(2).daemon?.stop();
    // As on a copy of host 1: neither lease nor state of its own.
    const copy = await host(2).startDaemon({
      args: ['--iface=eth0', `--public-ip=${host(1).publicIp}`],
      directory: 'copy',
    });
    assert.equal(copy.subnetEnv().FLANNEL_SUBNET, host(1).daemon?.subnetEnv().FLANNEL_SUBNET, 'both have one subnet');
    const finding = await at(host(2)).serious();
    assert.deepEqual(
      finding.map(({ check }) => check),
      ['duplicate-public-ip'],
      JSON.stringify(finding),
    );
    await at(host(2)).typeWithService(finding[0]?.command ?? '', 'restart tsflanneld', async () => {
      await copy.stop();
      const [, address = ''] =
        /^FLANNELD_PUBLIC_IP=(.+)$/m.exec(readFileSync(path.join(at(host(2)).defaults, 'tsflanneld'), 'utf8')) ?? [];
      await host(2).startDaemon({ env: { FLANNELD_PUBLIC_IP: address } });
    });
    await eventually('each host to be well', flows, { timeoutMs: 90_000 });
  });

  it('shows how far it is on a terminal, and in a pipe it does not', async () => {
    const seen = await at(host(1)).shell(`script -qec 'tsflannelctl doctor' /dev/null`);
    assert.match(seen.stdout, /probing peers: 0 of 1/);
    const piped = await at(host(1)).shell('tsflannelctl doctor');
    assert.equal(piped.stderr, '');
    assert.match(piped.stdout, /nothing wrong found/);
  });
});
