import assert from 'node:assert/strict';
import { isNativeAvailable } from '../../src/dataplane/native.js';
import { OFFLOADS } from '../../src/dataplane/tunnel.js';
import { Overlay } from '../support/overlay.js';
import type { LinkModel } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { ping, tcpTransfer } from '../support/traffic.js';

const BYTES = 150_000_000;

const MIXTURES = [
  ['native', 'native'],
  ['native', 'portable'],
] as const;

/** In the network, but in no host's subnet. */
const UNLEASED = '10.5.255.9';

for (const link of ['veth', 'wire'] satisfies LinkModel[]) {
  for (const datapaths of MIXTURES) {
    describe(`150 MB between containers over a ${link} link, ${datapaths.join(' to ')}`, () => {
      let overlay: Overlay;

      before(async function () {
        if (!isNativeAvailable()) skipBecause(this, 'the addon is not built');
        const config = { Network: '10.5.0.0/16', SubnetMax: '10.5.200.0' };
        overlay = await Overlay.create({
          link,
          config,
          args: (host) => ['--datapath', datapaths[host - 1] ?? 'native'],
        });
      });
      after(() => overlay.close());

      for (const [from, to] of [
        [1, 2],
        [2, 1],
      ] as const) {
        it(`arrive unaltered from the ${datapaths[from - 1]} host ${from} at the ${datapaths[to - 1]} host ${to}`, async () => {
          const [source, target] = [overlay.container(from), overlay.container(to)];
          const result = await tcpTransfer(source.netns, target.netns, target.address, { bytes: BYTES, seed: from });
          assert.equal(result.bytes, BYTES);
        });
      }

      // The portable tunnel has no batches to show.
      if (datapaths[1] === 'portable') return;
      it('show in the metrics, with how many packets each call carried', async () => {
        await ping(overlay.container(1).netns, UNLEASED, { count: 3, waitSeconds: 1 });
        // The transfers went both ways, so each host has sent and received bulk.
        const metrics = await Metrics.of(overlay, 1);
        const sent = metrics.value('tsflannel_tunnel_transmit_packets_total');
        const received = metrics.value('tsflannel_tunnel_receive_packets_total');
        assert.ok(sent > BYTES / 1472 && received > BYTES / 1472, `${sent} sent, ${received} received`);
        assert.ok(metrics.value('tsflannel_tunnel_transmit_bytes_total') > BYTES);
        assert.ok(metrics.value('tsflannel_tunnel_receive_bytes_total') > BYTES);
        // All packets are in the histograms, most of them in few calls.
        for (const [name, packets] of [
          ['tsflannel_tunnel_packets_per_read', sent],
          ['tsflannel_tunnel_packets_per_send', sent],
          ['tsflannel_tunnel_packets_per_write', received],
        ] as const) {
          const calls = metrics.value(`${name}_count`);
          const small = metrics.value(`${name}_bucket`, 'le="8"');
          assert.ok(calls > 0 && calls < packets / 4, `${name}: ${calls} calls for ${packets} packets`);
          assert.ok(calls > small, `${name}: calls with more than 8 packets`);
        }
        for (const call of ['tun-read', 'tun-write', 'socket-send', 'socket-receive']) {
          const calls = metrics.value('tsflannel_tunnel_system_calls_total', `call="${call}"`);
          assert.ok(calls > 0 && calls < (sent + received) / 2, `${call}: ${calls} for ${sent} + ${received} packets`);
        }
        assert.equal(metrics.value('tsflannel_tunnel_drops_total', 'reason="no-route"'), 3);
        for (const offload of OFFLOADS) {
          assert.equal(metrics.value('tsflannel_tunnel_offload_active', `offload="${offload}"`), 1);
          assert.equal(metrics.value('tsflannel_tunnel_offload_downgrades_total', `offload="${offload}"`), 0);
        }
      });
    });
  }
}

/** The answer of a daemon to a scrape. */
class Metrics {
  private constructor(private readonly text: string) {}

  static async of(overlay: Overlay, host: number): Promise<Metrics> {
    return new Metrics(await overlay.daemon(host).get('/metrics'));
  }

  /** Value of the one sample with that name and that label. */
  value(name: string, label = ''): number {
    const lines = this.text.split('\n').filter((line) => new RegExp(`^${name}[{ ]`).test(line) && line.includes(label));
    assert.equal(lines.length, 1, `${name} ${label}: ${lines.join(' | ')}`);
    return Number(lines[0]?.split(' ').at(-1));
  }
}
