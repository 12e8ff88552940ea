import assert from 'node:assert/strict';
import type { NetworkProperties } from '../../src/container/addresses.js';
import { encodePlace, placePath } from '../../src/container/host-place.js';
import type { PoolIdentity } from '../../src/container/pool-id.js';
import { net } from '../support/builders.js';
import type { Netns } from '../support/netns.js';
import { type ReachEntry, addressEntry, blockEntry, networkEntry } from '../support/reach-entries.js';
import { type Host, Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { ping } from '../support/traffic.js';
import { waitFor } from '../support/wait.js';

const DIRECT: PoolIdentity = { name: 'direct', subnet: net('10.98.0.0/24'), range: net('10.98.0.0/24') };
const GATEWAY = '169.254.1.1';

describe('containers with addresses of their own on two hosts', function () {
  this.timeout(120_000);
  let rig: Rig;
  let overlay: readonly Netns[];
  let direct: readonly Netns[];

  before(async function () {
    if (process.getuid?.() !== 0) skipBecause(this, 'network namespaces need root');
    rig = await Rig.create({ hosts: 2 });
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } });
    for (const host of rig.hosts) await host.startDaemon({ hasPlugin: true, args: [`--host-id=${host.name}`] });
    await put(networkEntry({ type: 'overlay', address: 'host' } satisfies NetworkProperties));
    await put(networkEntry({ type: 'bridge', address: 'host' }, { pool: DIRECT }));
    for (const [index, host] of rig.hosts.entries()) {
      await put(blockEntry(host.name, `10.99.0.${(index + 1) * 16}/28`));
      await put(blockEntry(host.name, `10.98.0.${(index + 1) * 16}/28`, { pool: DIRECT }));
      const { lease } = (await host.daemon?.status()) ?? assert.fail('no daemon');
      const leaseKey = lease?.subnet.replace('/', '-') ?? assert.fail('no lease');
      const addresses = { 4: net(`${lease?.publicIp ?? ''}/32`).address };
      await put({ path: placePath(host.name), text: encodePlace({ addresses, leaseKey }), createdAt: '' });
    }
    overlay = await Promise.all(rig.hosts.map((host, index) => container(host, `10.99.0.${(index + 1) * 16 + 1}`)));
    direct = await Promise.all(rig.hosts.map((host, index) => container(host, `10.98.0.${(index + 1) * 16 + 1}`)));
  });

  after(() => rig.close());

  const put = ({ path, text }: ReachEntry): Promise<void> => rig.etcd.put(`${rig.etcdPrefix}-ts/${path}`, text);

  /** A namespace behind a host, with nothing but its host on its link. */
  async function container({ name, netns }: Host, address: string): Promise<Netns> {
    const inside = await rig.addNamespace(`${name}-${address.replaceAll('.', '-').slice(3)}`);
    const device = `c${address.split('.').slice(1).join('')}`;
    await netns.ip([
      `link add ${device} type veth peer name eth0 netns ${inside.name}`,
      `link set ${device} up`,
      `addr add ${GATEWAY}/32 dev ${device}`,
      `route add ${address}/32 dev ${device}`,
    ]);
    await inside.ip([
      'link set eth0 up',
      `addr add ${address}/32 dev eth0`,
      `route add ${GATEWAY}/32 dev eth0`,
      `route add default via ${GATEWAY}`,
    ]);
    return inside;
  }

  const answers = (from: Netns | undefined, to: string): Promise<unknown> =>
    waitFor(async () => from !== undefined && (await ping(from, to, { count: 1, waitSeconds: 1 })).received === 1, {
      what: `an answer from ${to}`,
    });

  for (const type of ['vxlan', 'udp', 'host-gw']) {
    it(`reach each other through ${type}, and the hosts reach them`, async () => {
      await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: type } });
      await Promise.all(
        rig.hosts.map(({ daemon }) =>
          waitFor(async () => (await daemon?.status())?.backends.join() === type, { what: `backend ${type}` }),
        ),
      );
      await answers(overlay[0], '10.99.0.33');
      await answers(overlay[1], '10.99.0.17');
      await answers(rig.host(1).netns, '10.99.0.33');
      await answers(direct[0], '10.98.0.33');
    });
  }

  it('tell the sender at once that an address has no container', async () => {
    const { received, output } = await ping(overlay[0] ?? assert.fail(), '10.99.0.40', { count: 1, waitSeconds: 2 });
    assert.equal(received, 0);
    assert.match(output, /Unreachable/);
  });

  it('are found where they are, in whatever block their address lies', async () => {
    const fixed = '10.99.0.20'; // of the first host's block
    await put(addressEntry(rig.host(2).name, fixed));
    await container(rig.host(2), fixed);
    await answers(overlay[0], fixed);
    await answers(overlay[1], fixed);
  });
});
