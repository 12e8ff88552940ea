import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { METRIC_FAMILIES } from '../../../src/observe/metric-families.js';
import { Metrics } from '../../../src/observe/metrics.js';
import type { DaemonStatus } from '../../../src/observe/status.js';
import { sampleStatus, sampleTunnelCounters } from '../../support/sample-status.js';
import { inOneStep } from '../../support/steps.js';

const textOf = (status: DaemonStatus): Promise<string> => new Metrics({ status: () => inOneStep(status) }).text();

describe('Metrics', () => {
  it('shows a sample of every family when nothing in the status is empty', async () => {
    const text = await textOf(sampleStatus());
    for (const { name } of METRIC_FAMILIES) {
      assert.match(text, new RegExp(`^${name}(_bucket)?(\\{| )`, 'm'), name);
    }
  });

  for (const [what, line] of [
    ['readiness', 'tsflannel_ready 1'],
    ['the lease', 'tsflannel_lease_remaining_seconds 86100'],
    ['the state among all states', 'tsflannel_lease_state{state="held"} 1'],
    ['the states it is not in', 'tsflannel_lease_state{state="lost"} 0'],
    ['renewals', 'tsflannel_lease_renewals_total 18'],
    ['errors by code', 'tsflannel_store_errors_total{code="ERR_ETCD_UNAVAILABLE"} 7'],
    ['answers of etcd within 2.5 ms', 'tsflannel_store_round_trip_seconds_bucket{le="0.0025"} 3000'],
    ['answers of etcd within 5 s', 'tsflannel_store_round_trip_seconds_bucket{le="5"} 3990'],
    ['the time etcd took', 'tsflannel_store_round_trip_seconds_sum 70.5'],
    ['peers by backend', 'tsflannel_peers{backend="udp"} 11'],
    ['skipped peers by cause', 'tsflannel_peers_skipped{cause="backend"} 1'],
    ['causes that no peer is skipped for', 'tsflannel_peers_skipped{cause="vtep-mac"} 0'],
    ['drift by kind', 'tsflannel_reconcile_drift_total{kind="route"} 3'],
    ['changes by kind and verb', 'tsflannel_reconcile_changes_total{kind="route",verb="add"} 20'],
    ['drops by reason', 'tsflannel_tunnel_drops_total{device="flannel0",reason="no-route"} 7'],
    ['offloads in use', 'tsflannel_tunnel_offload_active{device="flannel0",offload="tso"} 1'],
    ['offloads not in use', 'tsflannel_tunnel_offload_active{device="flannel0",offload="uso"} 0'],
    ['ICMP errors', 'tsflannel_tunnel_icmp_sent_total{device="flannel0",error="frag-needed"} 1'],
    ['addresses that are answered for', 'tsflannel_ndp_proxied_addresses 12'],
    ['questions about them', 'tsflannel_ndp_questions_total 40'],
    ['questions beyond the limit', 'tsflannel_ndp_questions_dropped_total 3'],
    ['addresses beyond the limit', 'tsflannel_ndp_addresses_refused_total 0'],
    ['peers of WireGuard devices', 'tsflannel_wireguard_peers{device="flannel-wg"} 1'],
    ['silent peers of WireGuard devices', 'tsflannel_wireguard_peers_silent{device="flannel-wg"} 0'],
    ['bytes to peers', 'tsflannel_wireguard_transmit_bytes_total{device="flannel-wg",subnet="10.100.5.0/24"} 2048'],
    ['bytes from peers', 'tsflannel_wireguard_receive_bytes_total{device="flannel-wg",subnet="10.100.5.0/24"} 4096'],
    ['ages of handshakes', 'tsflannel_wireguard_handshake_age_seconds{device="flannel-wg",subnet="10.100.5.0/24"} 129'],
    ['CPU time per worker', 'tsflannel_tunnel_worker_cpu_seconds_total{device="flannel0",worker="1"} 2.25'],
    ['batches of one packet', 'tsflannel_tunnel_packets_per_read_bucket{device="flannel0",le="1"} 1'],
    ['batches of up to 4 packets', 'tsflannel_tunnel_packets_per_read_bucket{device="flannel0",le="4"} 6'],
    ['all batches', 'tsflannel_tunnel_packets_per_read_bucket{device="flannel0",le="+Inf"} 45'],
    ['the number of batches', 'tsflannel_tunnel_packets_per_read_count{device="flannel0"} 45'],
  ] as const) {
    it(`shows ${what}`, async () => {
      const lines = (await textOf(sampleStatus())).split('\n');
      assert.ok(
        lines.includes(line),
        lines.filter((other) => other.startsWith(line.split(/[{ ]/)[0] ?? '')).join('\n'),
      );
    });
  }

  it('declares batch counts as a histogram', async () => {
    assert.match(await textOf(sampleStatus()), /^# TYPE tsflannel_tunnel_packets_per_send histogram$/m);
  });

  it('leaves out what has no value instead of telling 0', async () => {
    const lease = sampleStatus().lease;
    assert.ok(lease !== null);
    const text = await textOf(
      sampleStatus({ mtu: null, lease: { ...lease, expiresInSeconds: null, isReservation: true } }),
    );
    assert.doesNotMatch(text, /^tsflannel_mtu_bytes /m);
    assert.doesNotMatch(text, /^tsflannel_lease_remaining_seconds /m);
    assert.match(text, /^tsflannel_lease_reserved 1$/m);
  });

  it('forgets what is gone: each scrape is one snapshot', async () => {
    let status = sampleStatus();
    const metrics = new Metrics({ status: () => inOneStep(status) });
    assert.match(await metrics.text(), /flannel0/);
    status = sampleStatus({ tunnels: [], devices: [], lease: null, peers: [], backends: [] });
    const text = await metrics.text();
    assert.doesNotMatch(text, /flannel0|backend="udp"|10\.99\.7\.0/);
    assert.match(text, /^tsflannel_lease_state\{state="acquiring"\} 1$/m);
  });

  it('follows counters up, and down when a tunnel was opened anew', async () => {
    let scale = 1;
    const [tunnel] = sampleStatus().tunnels;
    assert.ok(tunnel !== undefined);
    const metrics = new Metrics({
      status: () => inOneStep(sampleStatus({ tunnels: [{ ...tunnel, counters: sampleTunnelCounters(scale) }] })),
    });
    const packets = async (): Promise<number> =>
      Number(/^tsflannel_tunnel_transmit_packets_total\{.*\} (\d+)$/m.exec(await metrics.text())?.[1]);
    assert.equal(await packets(), 40_000);
    scale = 3;
    assert.equal(await packets(), 120_000);
    scale = 0;
    assert.equal(await packets(), 0);
  });

  it('takes one snapshot for scrapes at the same time', async () => {
    let asked = 0;
    const metrics = new Metrics({
      status: () => {
        asked++;
        return inOneStep(sampleStatus());
      },
    });
    const [first, second] = await Promise.all([metrics.text(), metrics.text()]);
    assert.equal(first, second);
    assert.equal(asked, 1);
    await metrics.text();
    assert.equal(asked, 2);
  });

  it('escapes what comes from elsewhere', async () => {
    const lease = sampleStatus().lease;
    assert.ok(lease !== null);
    const text = await textOf(sampleStatus({ lease: { ...lease, backend: 'a"b\\c\nd' } }));
    assert.match(text, /backend="a\\"b\\\\c\\nd"/);
  });
});

describe('docs/metrics.md', () => {
  const page = readFileSync(new URL('../../../docs/metrics.md', import.meta.url), 'utf8');
  const rows = [
    ...page.matchAll(
      /^\| `(?<name>[a-z_0-9]+)` \| (?<type>\w+) \| (?<labels>[^|]*) \| (?<unit>[^|]*) \| (?<help>.*) \|$/gm,
    ),
  ].map(({ groups }) => ({
    name: groups?.name,
    type: groups?.type,
    labels: [...(groups?.labels ?? '').matchAll(/`(\w+)`/g)].map((match) => match[1]),
    help: groups?.help?.trim(),
  }));

  it('lists all metrics of the overlay with type, labels and meaning, and no others', () => {
    const expected = METRIC_FAMILIES.map(({ name, type, labels, help }) => ({ name, type, labels: [...labels], help }));
    const sort = <T extends { readonly name: string | undefined }>(list: readonly T[]): T[] =>
      [...list].sort((a, b) => String(a.name).localeCompare(String(b.name)));
    assert.deepEqual(sort(rows.filter((row) => row.name?.startsWith('tsflannel_'))), sort(expected));
  });

  it('lists the metrics of process and runtime, and no others', () => {
    const others = new Metrics({ status: () => inOneStep(sampleStatus()) }).names.filter(
      (name) => !name.startsWith('tsflannel_'),
    );
    const listed = [...page.matchAll(/`((?:process|nodejs)_[a-z_0-9]+)`/g)].map((match) => match[1]);
    assert.deepEqual([...new Set(listed)].sort(), [...others].sort());
  });
});

describe('docs/alerts.yml', () => {
  it('asks only for metrics that exist', () => {
    const rules = readFileSync(new URL('../../../docs/alerts.yml', import.meta.url), 'utf8');
    const known = METRIC_FAMILIES.map(({ name }) => name);
    const used = [...rules.matchAll(/\btsflannel_[a-z_]+/g)].map((match) => match[0]);
    assert.ok(used.length > 10);
    assert.deepEqual(
      used.filter((name) => !known.includes(name)),
      [],
    );
  });
});

describe('docs/grafana.json', () => {
  interface Dashboard {
    readonly panels: readonly {
      readonly id: number;
      readonly title: string;
      readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
      readonly targets: readonly { readonly expr: string; readonly legendFormat: string }[];
    }[];
    readonly templating: { readonly list: readonly { readonly name: string; readonly query: string }[] };
  }
  const dashboard = JSON.parse(
    readFileSync(new URL('../../../docs/grafana.json', import.meta.url), 'utf8'),
  ) as Dashboard;
  const targets = dashboard.panels.flatMap((panel) => panel.targets);

  it('asks only for metrics and labels that exist', () => {
    const names = new Metrics({ status: () => inOneStep(sampleStatus()) }).names;
    const queries = [...targets.map(({ expr }) => expr), ...dashboard.templating.list.map(({ query }) => query)];
    const used = queries.flatMap((query) =>
      [...query.matchAll(/\b(?:tsflannel|process|nodejs)_[a-z_]+/g)].map(([name]) => name),
    );
    assert.ok(used.length > 20);
    for (const name of used) {
      const isBucket = METRIC_FAMILIES.some(
        (family) => family.type === 'histogram' && name === `${family.name}_bucket`,
      );
      assert.ok(isBucket || names.includes(name), name);
    }
    const labels = new Set(['instance', 'job', 'le', ...METRIC_FAMILIES.flatMap((family) => family.labels)]);
    for (const { expr, legendFormat } of targets) {
      const grouped = [...expr.matchAll(/\b(?:by|on) \(([^)]*)\)/g)].flatMap(([, list = '']) => list.split(', '));
      const shown = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label = '']) => label);
      for (const label of [...grouped, ...shown]) assert.ok(labels.has(label), `${label} in ${expr}`);
    }
  });

  it('shows who does not answer and how fast the others do, who runs on saved state, and who waits for Docker', () => {
    const queries = targets.map(({ expr }) => expr).join('\n');
    const names = ['peers_unreachable', 'peer_round_trip_seconds', 'saved_state_in_use', 'docker_restart_needed'];
    for (const name of names) assert.match(queries, new RegExp(`tsflannel_${name}(_bucket)?\\{`));
  });

  it('shows when each peer of WireGuard shook hands last, and how much goes to it and comes from it', () => {
    const queries = targets.map(({ expr }) => expr).join('\n');
    const names = ['handshake_age_seconds', 'transmit_bytes_total', 'receive_bytes_total'];
    for (const name of names) assert.match(queries, new RegExp(`tsflannel_wireguard_${name}\\{`));
  });

  it('takes a rate of counters only, and never a counter as it is', () => {
    for (const { expr } of targets) {
      for (const [, call = '', name = ''] of expr.matchAll(/(\w*)\(?\b(tsflannel_[a-z_]+)(?=\{)/g)) {
        const isCounter = name.endsWith('_total') || name.endsWith('_bucket');
        assert.equal(['rate', 'increase'].includes(call), isCounter, expr);
      }
    }
  });

  it('has panels that do not overlap, each with an id of its own', () => {
    const taken = new Map<string, string>();
    for (const { title, gridPos } of dashboard.panels) {
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          assert.equal(taken.get(`${x} ${y}`), undefined, title);
          taken.set(`${x} ${y}`, title);
        }
      }
      assert.ok(gridPos.x + gridPos.w <= 24, title);
    }
    assert.equal(new Set(dashboard.panels.map(({ id }) => id)).size, dashboard.panels.length);
  });
});
