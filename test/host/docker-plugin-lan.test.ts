import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { parseCapabilities } from '../../src/sys/capabilities.js';
import { capture } from '../support/capture.js';
import { type Netns, run } from '../support/netns.js';
import { LAN, type PluginContainer, PluginLan, pingOnce } from '../support/plugin-lan.js';
import { skipBecause } from '../support/skip.js';
import { waitFor } from '../support/wait.js';

const CAP_SYS_ADMIN = 21n;

describe('the Docker plugin on a network', function () {
  this.timeout(60_000);
  let lan: PluginLan;
  const running: PluginContainer[] = [];
  const networks: string[] = [];

  before(async function () {
    if (process.getuid?.() !== 0) skipBecause(this, 'network namespaces need root');
    lan = await PluginLan.create();
  });
  after(() => lan.close());

  afterEach(async () => {
    for (const each of running.splice(0)) await each.remove();
    for (const id of networks.splice(0)) await lan.removeNetwork(id);
    await lan.setReflecting(false);
  });

  const create = async (options: Readonly<Record<string, string>> = {}, isInternal = false): Promise<string> => {
    const id = await lan.createNetwork(options, isInternal);
    networks.push(id);
    return id;
  };
  const start = async (network: string, n: number, options = {}): Promise<PluginContainer> => {
    const container = await lan.runContainer(network, n, options);
    running.push(container);
    return container;
  };
  const stop = async (container: PluginContainer): Promise<void> => {
    running.splice(running.indexOf(container), 1);
    await container.remove();
  };
  const reaches = async (from: Netns, address: string): Promise<boolean> =>
    (await from.run(pingOnce(address), { mayFail: true })).code === 0;
  const devices = async (netns: Netns): Promise<unknown[]> =>
    (await netns.ipJson(['link', 'show'])).map(({ ifname }) => ifname).sort();

  describe('announces an address that has moved', () => {
    it('to another container and to a machine, both families, with the capabilities of the unit', async () => {
      const { effective } = parseCapabilities(readFileSync(`/proc/${lan.pid}/status`, 'utf8'));
      assert.equal((effective >> CAP_SYS_ADMIN) & 1n, 0n);
      const before = await devices(lan.host);
      const network = await create();
      const sibling = await start(network, 71);
      const old = await start(network, 70);
      const neighbours = [sibling.netns, lan.machine];
      const known = async (netns: Netns, address: string): Promise<unknown> =>
        (await netns.ipJson(['neigh', 'show', address]))[0]?.['lladdr'];
      for (const each of neighbours) {
        for (const address of [old.address, old.address6]) {
          assert.ok(await reaches(each, address), address);
          assert.equal(await known(each, address), old.mac);
        }
      }
      await stop(old);
      // Docker is about to have the interface: whoever is told later than this is told too late.
      const moved = await start(network, 70);
      for (const each of neighbours) {
        for (const address of [moved.address, moved.address6]) {
          await waitFor(async () => (await known(each, address)) === moved.mac, {
            what: `${each.name} to know ${address}`,
          });
        }
      }
      await stop(moved);
      await stop(sibling);
      assert.deepEqual(await devices(lan.host), before);
    });

    it('three times with its own MAC address alone, and lets the container hear none of it', async () => {
      const seen = lan.machine.start(['tcpdump', '-lne', '-i', 'eth0', 'arp or icmp6']);
      await seen.waitForLine(/listening on/);
      const container = await start(await create(), 70);
      const fromItself = `ether src ${container.mac} and (arp or icmp6[0] = 136)`;
      const heard = await capture(container.netns, 'eth0', fromItself);
      const stations = (): string[] =>
        [...seen.output.matchAll(/^\S+ ([0-9a-f:]{17}) > /gm)].map(([, mac = '']) => mac);
      const announced = (): number => stations().filter((mac) => mac === container.mac).length;
      // ARP request and reply, neighbour advertisement.
      await waitFor(() => announced() >= 9, { what: 'three announcements', timeoutMs: 20_000 });
      await seen.stop('SIGINT');
      assert.equal((await heard.stop()).frames.length, 0);
      const links = await Promise.all([lan.host, lan.machine].map((each) => each.ipJson(['link', 'show', 'eth0'])));
      const known = new Set([container.mac, ...links.map(([link]) => link?.['address'])]);
      assert.deepEqual(
        stations().filter((mac) => !known.has(mac)),
        [],
      );
    });

    it('without a word of the kernel, or harm to an address whose duplicate detection is under way', async () => {
      const kernelLog = async (): Promise<string[]> => (await run(['dmesg'])).stdout.split('\n');
      const before = new Set(await kernelLog());
      const container = await start(await create(), 70, { nodad: false });
      const state = async (): Promise<Record<string, unknown>> => {
        const [link] = await container.netns.ipJson(['-6', 'address', 'show', 'dev', 'eth0', 'scope', 'global']);
        return (link?.['addr_info'] as Record<string, unknown>[])[0] ?? {};
      };
      assert.equal((await state())['tentative'], true);
      const isOver = async (): Promise<boolean> => {
        const { tentative, dadfailed } = await state();
        return tentative !== true || dadfailed === true;
      };
      await waitFor(isOver, { what: 'its end', timeoutMs: 20_000 });
      assert.equal((await state())['dadfailed'], undefined);
      assert.ok(await reaches(lan.machine, container.address6));
      const news = (await kernelLog()).filter((line) => !before.has(line));
      const spellings = [container.mac, container.mac.replaceAll(':', ' ')];
      assert.deepEqual(
        news.filter((line) => spellings.some((each) => line.includes(each))),
        [],
      );
    });
  });

  describe('with mode', () => {
    for (const [mode, isReflecting, areTogether] of [
      ['bridge', false, true],
      ['bridge', true, true],
      ['vepa', false, false],
      ['vepa', true, true],
      ['private', false, false],
      ['private', true, false],
    ] as const) {
      const port = isReflecting ? 'that reflects' : 'that does not reflect';
      const what = areTogether ? 'connects' : 'keeps apart';
      it(`${mode}, on a switch ${port}, ${what} two containers, and connects both with others`, async () => {
        await lan.setReflecting(isReflecting);
        const network = await create({ mode });
        const [one, two] = [await start(network, 70), await start(network, 71)];
        for (const address of [two.address, two.address6]) {
          assert.equal(await reaches(one.netns, address), areTogether, address);
        }
        for (const { netns } of [one, two]) {
          for (const address of [LAN.machine, LAN.machine6]) assert.ok(await reaches(netns, address), address);
          // The switch is the only way to the host, too.
          assert.equal(await reaches(netns, LAN.host), isReflecting && areTogether, 'the host');
        }
      });
    }

    it('vepa, on a switch that reflects, announces to the other containers', async () => {
      await lan.setReflecting(true);
      const network = await create({ mode: 'vepa' });
      const sibling = await start(network, 71);
      const old = await start(network, 70);
      assert.ok(await reaches(sibling.netns, old.address));
      await stop(old);
      const moved = await start(network, 70);
      const known = async (): Promise<unknown> =>
        (await sibling.netns.ipJson(['neigh', 'show', moved.address]))[0]?.['lladdr'];
      await waitFor(async () => (await known()) === moved.mac, { what: 'the other container to know' });
    });

    it('passthru, gives one container the interface alone, and the host its own back', async () => {
      const address = async (): Promise<unknown> => (await lan.host.ipJson(['link', 'show', 'eth0']))[0]?.['address'];
      const before = await address();
      const network = await create({ mode: 'passthru' });
      await assert.rejects(lan.createNetwork(), /mode passthru takes a parent alone/);
      const only = await start(network, 70);
      await assert.rejects(lan.runContainer(network, 71), /another container has it/);
      for (const each of [LAN.machine, LAN.machine6]) assert.ok(await reaches(only.netns, each), each);
      assert.equal(await reaches(lan.machine, LAN.host), false, 'the host, whose interface it is');
      assert.equal(await address(), only.mac, 'the interface has the MAC address of the container');
      await stop(only);
      assert.equal(await address(), before);
      await lan.machine.run(['ip', 'neigh', 'flush', 'all']);
      assert.ok(await reaches(lan.machine, LAN.host));
    });
  });
});
