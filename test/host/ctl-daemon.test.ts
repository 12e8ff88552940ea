import assert from 'node:assert/strict';
import type { Finding } from '../../src/ctl/doctor/facts.js';
import type { DaemonStatus } from '../../src/observe/status.js';
import { ctlFile } from '../support/daemon.js';
import { netState } from '../support/net-state.js';
import type { Output } from '../support/netns.js';
import { type Host, Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { ping } from '../support/traffic.js';
import { eventually, waitFor } from '../support/wait.js';

for (const backend of ['vxlan', 'udp'] as const) {
  describe(`tsflannelctl beside daemons with ${backend}`, () => {
    let rig: Rig;

    before(async function () {
      if (process.getuid?.() !== 0) skipBecause(this, 'network namespaces need root');
      rig = await Rig.create({ hosts: 2 });
      await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: backend } });
      for (const host of rig.hosts) await host.startDaemon();
      for (const each of rig.hosts) await each.addContainer();
      for (const each of rig.hosts) {
        await eventually(`${each.name} to know its peer`, async () => {
          const { peers, isReady, reconcile } = await statusOf(each);
          assert.deepEqual(
            [peers.map((peer) => peer.backend), isReady, reconcile.isConverged],
            [[backend], true, true],
          );
        });
      }
      await overlayWorks();
    });

    after(() => rig.close());

    const host = (number: number): Host => rig.host(number);

    const ctl = (on: Host, ...words: readonly string[]): Promise<Output> =>
      on.netns.run(
        [
          ...[process.execPath, ctlFile(), ...words, `--etcd-endpoints=${rig.etcd.endpoint}`],
          ...['--status-socket', on.daemon?.statusSocket ?? '', '--subnet-file', on.daemon?.subnetFile ?? ''],
        ],
        { mayFail: true },
      );

    async function statusOf(on: Host): Promise<DaemonStatus> {
      const status = await on.daemon?.status();
      assert.ok(status !== undefined);
      return status;
    }

    /** Waits until both hosts reach each other through the overlay, as they do some time after any disturbance. */
    async function overlayWorks(): Promise<void> {
      const addresses = rig.hosts.map(({ daemon }) => daemon?.subnetEnv().FLANNEL_SUBNET?.replace(/\/.*/, '') ?? '');
      for (const [from, to] of [
        [1, 2],
        [2, 1],
      ] as const) {
        const [source = '', target = ''] = [addresses[from - 1], addresses[to - 1]];
        const probe = { count: 1, waitSeconds: 1, source };
        await waitFor(async () => (await ping(host(from).netns, target, probe)).received === 1, {
          what: `an answer of host ${to} to host ${from}`,
        });
      }
    }

    async function doctor(on: Host): Promise<{ readonly code: number; readonly findings: readonly Finding[] }> {
      const { stdout, stderr, code } = await ctl(on, 'doctor', '--json');
      assert.notEqual(stdout, '', stderr);
      return { code, findings: (JSON.parse(stdout) as { findings: readonly Finding[] }).findings };
    }

    /** Checks other than notes that find something. */
    async function faults(on: Host): Promise<readonly string[]> {
      const { findings } = await doctor(on);
      return findings.filter(({ severity }) => severity !== 'note').map(({ check }) => check);
    }

    it('shows lease, peer and backend of this host', async () => {
      const { stdout, code } = await ctl(host(1), 'status');
      assert.equal(code, 0);
      assert.match(stdout, /^daemon +v\S+ on .*, ready$/m);
      assert.match(stdout, new RegExp(`^lease +10\\.5\\.\\d+\\.0/24 at ${host(1).publicIp}, held, ends in 23h`, 'm'));
      assert.match(stdout, new RegExp(`^10\\.5\\.\\d+\\.0/24 +${host(2).publicIp} +${backend}`, 'm'));
      assert.match(stdout, /^etcd +connected to /m);
      if (backend === 'udp') assert.match(stdout, /^offloads +\S/m);
      const { daemon } = JSON.parse((await ctl(host(1), 'status', '--json')).stdout) as { daemon: DaemonStatus };
      assert.equal(daemon.lease?.publicIp, host(1).publicIp);
    });

    it('finds nothing wrong where nothing is', async () => {
      const { code, findings } = await doctor(host(1));
      const serious = findings.filter(({ severity }) => severity !== 'note');
      assert.deepEqual(serious, []);
      assert.equal(code, 0);
    });

    it('finds a path that carries less than the MTU, and how much it carries', async () => {
      const table = 'add table netdev cut';
      const chain = 'add chain netdev cut in { type filter hook ingress device "eth0" priority 0; }';
      const rule = 'add rule netdev cut in meta length > 1414 drop'; // 1400 and the Ethernet header
      await host(2).netns.run(['nft', '-f', '-'], { input: `${table}\n${chain}\n${rule}\n` });
      try {
        const { findings } = await doctor(host(1));
        const finding = findings.find(({ check }) => check === 'path-mtu');
        assert.match(finding?.command ?? JSON.stringify(findings), /^ip link set dev eth0 mtu 14\d\d/);
      } finally {
        await host(2).netns.run(['nft', 'delete', 'table', 'netdev', 'cut']);
      }
    });

    it('tells a blocked UDP port from a host that is down', async () => {
      const port = backend === 'udp' ? '8285' : '8472';
      const rule = ['INPUT', '-p', 'udp', '--dport', port, '-j', 'DROP'];
      await host(2).netns.run(['iptables', '-I', ...rule]);
      try {
        assert.deepEqual(await faults(host(1)), ['overlay-blocked']);
      } finally {
        await host(2).netns.run(['iptables', '-D', ...rule]);
      }
      await host(2).netns.ip(['link set eth0 down']);
      try {
        assert.deepEqual(await faults(host(1)), ['peers']);
      } finally {
        await host(2).netns.ip(['link set eth0 up', 'route replace default via 192.0.2.1']);
        await overlayWorks();
      }
    });

    if (backend === 'vxlan') {
      it('finds that TCP and UDP are lost while ICMP passes', async () => {
        // What a NIC with broken checksum offload does to the peer, as far as anybody can see from here.
        const rules = ['tcp', 'udp'].map((protocol) => ['INPUT', '-i', 'flannel.1', '-p', protocol, '-j', 'DROP']);
        for (const rule of rules) await host(2).netns.run(['iptables', '-I', ...rule]);
        try {
          assert.deepEqual(await faults(host(1)), ['checksum']);
        } finally {
          for (const rule of rules) await host(2).netns.run(['iptables', '-D', ...rule]);
        }
      });
    }

    it("finds Docker's bridge in another subnet, forwarding switched off, and routes of others", async () => {
      const subnet = (await statusOf(host(2))).lease?.subnet ?? '';
      const inside = subnet.replace(/0\/24$/, '128/25');
      await host(1).netns.ip(['addr add 10.5.250.1/24 dev docker0', `route add ${inside} via 192.0.2.77`]);
      await host(1).netns.run(['sysctl', '-qw', 'net.ipv4.ip_forward=0']);
      try {
        const { code, findings } = await doctor(host(1));
        assert.equal(code, 3);
        const byCheck = new Map(findings.map((finding) => [finding.check, finding.command]));
        assert.equal(byCheck.get('foreign-route'), `ip route del ${inside} via 192.0.2.77 dev eth0`);
        assert.equal(byCheck.get('ip-forward'), 'sysctl -w net.ipv4.ip_forward=1');
        assert.match(byCheck.get('docker-bridge') ?? '', /restart docker/);
        for (const check of ['foreign-route', 'ip-forward']) {
          await host(1).netns.run(['sh', '-c', byCheck.get(check) ?? 'false']);
        }
      } finally {
        await host(1).netns.ip(['addr del 10.5.250.1/24 dev docker0']);
      }
      assert.deepEqual(await faults(host(1)), [], 'the commands fix it');
    });

    it('refuses to clean up under the daemon, and afterwards leaves nothing of it', async () => {
      assert.equal((await ctl(host(1), 'cleanup')).code, 5);
      await host(1).daemon?.stop();
      const { code, stderr } = await ctl(host(1), 'cleanup');
      assert.equal(code, 0, stderr);
      const { links, routes, neighbours, iptables, nftables } = await netState(host(1).netns);
      const left = JSON.stringify({ links, routes, neighbours, iptables, nftables });
      assert.doesNotMatch(left, /flannel|proto 173/i);

      const down = await ctl(host(1), 'status');
      assert.equal(down.code, 4);
      assert.match(down.stderr, /cannot ask the daemon at .*systemctl start tsflanneld/);
      assert.match(down.stdout, new RegExp(`^lease +held by ${host(1).publicIp}, ${backend}, ends in `, 'm'));
    });
  });
}
