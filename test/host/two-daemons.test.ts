import assert from 'node:assert/strict';
import type { Daemon } from '../support/daemon.js';
import { type NetState, netState } from '../support/net-state.js';
import { type Host, Rig } from '../support/rig.js';
import { SteadyPing } from '../support/steady-ping.js';
import { ping } from '../support/traffic.js';
import { waitFor } from '../support/wait.js';

const PREFIX = { a: '/coreos.com/network', b: '/other/network' } as const;

/**
 * Two overlays on the same two hosts, each with its own daemons, etcd prefix, port, VNI and network. Whatever happens
 * to one of them, nothing of the other changes.
 */
for (const type of ['vxlan', 'udp', 'host-gw']) {
  describe(`two daemons on one host with ${type}`, () => {
    let rig: Rig;
    let host: Host;
    const daemons = new Map<string, Daemon>();

    const config = (overlay: 'a' | 'b', change: object = {}): string =>
      JSON.stringify({
        Network: overlay === 'a' ? '10.5.0.0/16' : '10.6.0.0/16',
        Backend: {
          Type: type,
          ...(type === 'vxlan' ? { VNI: overlay === 'a' ? 1 : 2 } : {}),
          ...(type === 'udp' ? { Port: overlay === 'a' ? 8285 : 8286 } : {}),
          ...change,
        },
      });

    const make = (number: number, overlay: 'a' | 'b'): Daemon => {
      const daemon = rig.host(number).makeDaemon({
        directory: `h${number}-${overlay}`,
        args: [`--etcd-prefix=${PREFIX[overlay]}`, '--iptables-forward-rules=false'],
      });
      daemons.set(`${number}${overlay}`, daemon);
      return daemon;
    };

    const daemon = (name: string): Daemon => {
      const found = daemons.get(name);
      if (found === undefined) throw new Error(`no daemon ${name}`);
      return found;
    };

    /** The address on the host's device of that overlay, reachable through it from the other host. */
    const address = (number: number, overlay: 'a' | 'b'): string =>
      (daemon(`${number}${overlay}`).subnetEnv().FLANNEL_SUBNET ?? '').replace(/\/\d+$/, '');

    /** Lines about one overlay: its addresses and devices. */
    const part = (state: NetState, overlay: 'a' | 'b'): string[] => {
      const network = overlay === 'a' ? '10.5.' : '10.6.';
      return [...state.addresses, ...state.routes, ...state.neighbours, ...state.fdb].filter((line) =>
        line.includes(network),
      );
    };

    const isReachable = async (overlay: 'a' | 'b'): Promise<boolean> =>
      (await ping(host.netns, address(2, overlay), { count: 1, waitSeconds: 1, source: address(1, overlay) }))
        .received === 1;

    before(async () => {
      rig = await Rig.create({ hosts: 2 });
      host = rig.host(1);
      for (const overlay of ['a', 'b'] as const) {
        await rig.etcd.put(`${PREFIX[overlay]}/config`, config(overlay));
        for (const number of [1, 2]) {
          const made = make(number, overlay);
          await made.startAndWait();
          // Containers are where packets go to and come from; an address on loopback stands for them.
          const subnet = made.subnetEnv().FLANNEL_SUBNET ?? '';
          await rig.host(number).netns.ip([`addr add ${subnet.replace(/\/\d+$/, '')}/32 dev lo`]);
        }
      }
    });

    after(async () => {
      for (const running of daemons.values()) await running.kill();
      await rig.close();
    });

    it('carry their overlays side by side', async () => {
      for (const overlay of ['a', 'b'] as const) {
        await waitFor(() => isReachable(overlay), { what: `an answer through ${overlay}` });
      }
      const { routes } = await netState(host.netns);
      assert.equal(routes.filter((route) => route.includes('10.5.') && route.includes('proto 173')).length, 1);
      assert.equal(routes.filter((route) => route.includes('10.6.') && route.includes('proto 173')).length, 1);
    });

    it('do not notice when the other one starts, stops or is killed', async () => {
      const before = part(await netState(host.netns), 'a');
      assert.ok(before.length > 0);
      const pings = SteadyPing.start(host.netns, address(2, 'a'), { source: address(1, 'a') });
      await daemon('1b').stop();
      await daemon('1b').startAndWait();
      await daemon('1b').kill();
      await daemon('1b').startAndWait();
      await waitFor(() => isReachable('b'), { what: 'an answer through b' });
      const { sent, received } = await pings.stop();
      assert.equal(received, sent);
      assert.deepEqual(part(await netState(host.netns), 'a'), before);
    });

    it('do not notice when the other one gets another configuration', async () => {
      const change = { vxlan: { VNI: 3, MTU: 1400 }, udp: { Port: 8290 }, 'host-gw': { Type: 'vxlan', VNI: 9 } }[type];
      const before = part(await netState(host.netns), 'a');
      const pings = SteadyPing.start(host.netns, address(2, 'a'), { source: address(1, 'a') });
      await rig.etcd.put(`${PREFIX.b}/config`, config('b', change));
      for (const name of ['1b', '2b']) await daemon(name).waitForLog(/network configuration changed/);
      const sign = type === 'udp' ? ['ss', '-lnu'] : ['ip', '-o', 'link'];
      const word = { vxlan: 'flannel.3:', udp: ':8290 ', 'host-gw': 'flannel.9:' }[type] ?? '';
      for (const { netns } of rig.hosts) {
        await waitFor(async () => (await netns.run(sign)).stdout.includes(word), { what: word });
      }
      await waitFor(() => isReachable('b'), { what: 'an answer through the changed overlay' });
      const { sent, received } = await pings.stop();
      assert.equal(received, sent);
      assert.deepEqual(part(await netState(host.netns), 'a'), before);
      const repairs = daemon('1a')
        .log.split('\n')
        .filter((line) => line.includes('reverted a change'));
      assert.deepEqual(repairs, [], 'there was nothing to repair');
    });

    if (type !== 'vxlan') return;

    it('say what is wrong when they want the same device, and leave it to its owner', async () => {
      const [before] = await host.netns.ipJson(['-d', 'link', 'show', 'dev', 'flannel.1']);
      await rig.etcd.put(`${PREFIX.b}/config`, config('b', { VNI: 1 }));
      await daemon('1b').waitForLog(/cannot use flannel\.1: it belongs to another daemon/);
      const [after] = await host.netns.ipJson(['-d', 'link', 'show', 'dev', 'flannel.1']);
      assert.deepEqual(
        [after?.ifindex, after?.address, after?.ifalias],
        [before?.ifindex, before?.address, before?.ifalias],
      );
      assert.ok(await isReachable('a'));
    });
  });
}
