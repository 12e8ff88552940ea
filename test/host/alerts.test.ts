import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { skipBecause } from '../support/skip.js';

const RULES = path.resolve(import.meta.dirname, '../../docs/alerts.yml');

/** When an alert fires: values are those of promtool's tests, `1x20` is a 1 and twenty more of them, a minute apart. */
interface Case {
  readonly alert: string;
  readonly metric: string;
  readonly labels?: string;
  /** Series that each of the hosts has besides, and their values. */
  readonly beside?: Readonly<Record<string, string>>;
  /** Of the host where it has to fire. */
  readonly bad: string;
  /** Of hosts where it must not, such as one just below the threshold. */
  readonly good: readonly string[];
  /** Minute at which it has not been bad for long enough yet; none where the alert does not wait. */
  readonly notYet?: number;
  readonly fires: number;
}

const CASES: readonly Case[] = [
  {
    alert: 'TsflannelDown',
    metric: 'up',
    labels: 'job="tsflannel"',
    bad: '0x20',
    good: ['1x20', '0x4 1x16'],
    notYet: 4,
    fires: 5,
  },
  {
    alert: 'TsflannelNotReady',
    metric: 'tsflannel_ready',
    bad: '0x20',
    good: ['1x20', '0x4 1x16'],
    notYet: 4,
    fires: 5,
  },
  {
    alert: 'TsflannelLeaseEnding',
    metric: 'tsflannel_lease_remaining_seconds',
    bad: '14399-60x20',
    good: ['86400-60x20', '14400x20'],
    notYet: 4,
    fires: 5,
  },
  {
    alert: 'TsflannelLeaseLost',
    metric: 'tsflannel_lease_losses_total',
    bad: '0x5 1x30',
    good: ['0x35', '7x35'],
    fires: 7,
  },
  {
    alert: 'TsflannelLeaseFoughtOver',
    metric: 'tsflannel_lease_overwrites_total',
    bad: '0+1x20',
    good: ['0x20', '0x5 1x15'],
    fires: 15,
  },
  {
    alert: 'TsflannelEtcdAway',
    metric: 'tsflannel_store_connected',
    bad: '0x20',
    good: ['1x20', '0x9 1x11'],
    notYet: 9,
    fires: 10,
  },
  {
    alert: 'TsflannelPeersSkipped',
    metric: 'tsflannel_peers_skipped',
    labels: 'cause="data"',
    bad: '1x20',
    good: ['0x20', '3x9 0x11'],
    notYet: 9,
    fires: 10,
  },
  {
    alert: 'TsflannelPeersUnreachable',
    metric: 'tsflannel_peers_unreachable',
    bad: '1x20',
    good: ['0x20', '3x9 0x11'],
    notYet: 9,
    fires: 10,
  },
  {
    alert: 'TsflannelHostIsolated',
    metric: 'tsflannel_peers_unreachable',
    beside: { 'tsflannel_peers{backend="udp"}': '4x20', 'tsflannel_peers{backend="vxlan"}': '6x20' },
    bad: '6x20',
    good: ['0x20', '5x20', '6x2 0x18'],
    notYet: 2,
    fires: 3,
  },
  {
    alert: 'TsflannelWireguardSilent',
    metric: 'tsflannel_wireguard_peers_silent',
    labels: 'device="flannel-wg"',
    bad: '2x20',
    good: ['0x20', '3x9 0x11'],
    notYet: 9,
    fires: 10,
  },
  {
    alert: 'TsflannelWireguardSilent',
    metric: 'tsflannel_wireguard_handshake_age_seconds',
    labels: 'device="flannel-wg",subnet="10.5.2.0/24"',
    beside: { 'tsflannel_wireguard_transmit_bytes_total{device="flannel-wg",subnet="10.5.2.0/24"}': '0+148x40' },
    bad: '0+60x40',
    good: ['0+60x2 '.repeat(10).trimEnd(), '0+60x9 0x31'],
    notYet: 15,
    fires: 17,
  },
  {
    alert: 'TsflannelConfigRejected',
    metric: 'tsflannel_network_config_rejected',
    bad: '1x20',
    good: ['0x20'],
    fires: 1,
  },
  {
    alert: 'TsflannelKernelRefuses',
    metric: 'tsflannel_reconcile_failing_objects',
    bad: '2x20',
    good: ['0x20'],
    notYet: 9,
    fires: 10,
  },
  {
    alert: 'TsflannelKernelRefuses',
    metric: 'tsflannel_reconcile_conflicts',
    bad: '1x20',
    good: ['0x20'],
    notYet: 9,
    fires: 10,
  },
  {
    alert: 'TsflannelDockerRestartNeeded',
    metric: 'tsflannel_docker_restart_needed',
    bad: '1x30',
    good: ['0x30', '1x14 0x16'],
    notYet: 14,
    fires: 15,
  },
  {
    alert: 'TsflannelDrift',
    metric: 'tsflannel_reconcile_drift_total',
    labels: 'kind="route"',
    bad: '0+1x60',
    good: ['0x60', '0+1x5 5x55'],
    fires: 60,
  },
  {
    alert: 'TsflannelFirewallIncomplete',
    metric: 'tsflannel_firewall_in_place',
    labels: 'mode="iptables"',
    bad: '0x20',
    good: ['1x20'],
    notYet: 4,
    fires: 5,
  },
  {
    alert: 'TsflannelDrops',
    metric: 'tsflannel_tunnel_drops_total',
    labels: 'reason="source-unknown"',
    bad: '0+1200x30',
    good: ['0+300x30'],
    notYet: 9,
    fires: 15,
  },
  {
    alert: 'TsflannelOffloadLost',
    metric: 'tsflannel_tunnel_offload_downgrades_total',
    labels: 'offload="uso"',
    bad: '0x5 1x30',
    good: ['0x35', '2x35'],
    fires: 7,
  },
  {
    alert: 'TsflannelLeasesNotBelieved',
    metric: 'tsflannel_leases_quarantined',
    labels: 'reason="bad-public-ip"',
    bad: '1x30',
    good: ['0x30', '1x14 0x16'],
    notYet: 14,
    fires: 15,
  },
  {
    alert: 'TsflannelPeersForgotten',
    metric: 'tsflannel_peers_kept',
    bad: '3x20',
    good: ['0x20', '3x4 0x16'],
    notYet: 4,
    fires: 5,
  },
];

describe('docs/alerts.yml', function () {
  let directory: string;

  before(function () {
    if (!existsSync('/usr/bin/promtool')) skipBecause(this, 'no promtool (Debian package prometheus)');
    directory = mkdtempSync(path.join(tmpdir(), 'tsflannel-alerts-'));
  });

  after(() => {
    if ((directory as string | undefined) !== undefined) rmSync(directory, { recursive: true });
  });

  /** Runs promtool on a test as YAML, of which JSON is a part. */
  function promtool(series: readonly object[], expectations: readonly object[]): void {
    const file = path.join(directory, 'test.yml');
    const test = { interval: '1m', input_series: series, promql_expr_test: expectations };
    writeFileSync(file, JSON.stringify({ rule_files: [RULES], evaluation_interval: '1m', tests: [test] }));
    const { status, stdout, stderr } = spawnSync('promtool', ['test', 'rules', file], { encoding: 'utf8' });
    assert.equal(status, 0, `${stdout}${stderr}`);
  }

  for (const { alert, metric, labels, beside = {}, bad, good, notYet, fires } of CASES) {
    it(`fires ${alert} for ${metric} where it should, and nowhere else`, () => {
      const name = (instance: string): string => `${metric}{${[`instance="${instance}"`, labels ?? []].flat().join()}}`;
      const hosts = [{ instance: 'bad', values: bad }, ...good.map((values, n) => ({ instance: `good${n}`, values }))];
      const series = hosts.flatMap(({ instance, values }) => [
        { series: name(instance), values },
        ...Object.entries(beside).map(([other, otherValues]) => ({
          series: other.replace('{', `{instance="${instance}",`),
          values: otherValues,
        })),
      ]);
      const expr = `count by (instance) (ALERTS{alertname="${alert}",alertstate="firing"})`;
      const firing = { expr, eval_time: `${fires}m`, exp_samples: [{ labels: '{instance="bad"}', value: 1 }] };
      const quiet = notYet === undefined ? [] : [{ expr, eval_time: `${notYet}m`, exp_samples: [] }];
      promtool(series, [...quiet, firing]);
    });
  }

  it('leaves drops alone that every network has', () => {
    const name = (reason: string): string => `tsflannel_tunnel_drops_total{instance="a",reason="${reason}"}`;
    const series = ['ttl-expired', 'no-route'].map((reason) => ({ series: name(reason), values: '0+60000x30' }));
    promtool(series, [{ expr: 'ALERTS{alertname="TsflannelDrops"}', eval_time: '25m', exp_samples: [] }]);
  });

  it('does not miss handshakes of a peer that nothing is sent to', () => {
    const series = Object.entries({ handshake_age_seconds: '0+60x60', transmit_bytes_total: '7000x60' });
    const labels = '{instance="a",device="flannel-wg",subnet="10.5.2.0/24"}';
    promtool(
      series.map(([name, values]) => ({ series: `tsflannel_wireguard_${name}${labels}`, values })),
      [{ expr: 'ALERTS{alertname="TsflannelWireguardSilent"}', eval_time: '50m', exp_samples: [] }],
    );
  });

  it('does not call a host isolated whose only peer is off', () => {
    const series = ['tsflannel_peers_unreachable{instance="a"}', 'tsflannel_peers{instance="a",backend="udp"}'];
    const expr = 'ALERTS{alertname="TsflannelHostIsolated"}';
    promtool(
      series.map((name) => ({ series: name, values: '1x20' })),
      [{ expr, eval_time: '15m', exp_samples: [] }],
    );
  });

  it('has beside it a dashboard whose queries promtool understands', () => {
    const text = readFileSync(path.resolve(RULES, '../grafana.json'), 'utf8').replaceAll('$__rate_interval', '5m');
    const { panels } = JSON.parse(text) as { panels: { targets: { expr: string }[] }[] };
    const rules = panels.flatMap(({ targets }) => targets).map(({ expr }, n) => ({ record: `panel:${n}`, expr }));
    const file = path.join(directory, 'dashboard.yml');
    writeFileSync(file, JSON.stringify({ groups: [{ name: 'dashboard', rules }] }));
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'rules', file], { encoding: 'utf8' });
    assert.equal(status, 0, `${stdout}${stderr}`);
    assert.match(stdout, new RegExp(`SUCCESS: ${rules.length} rules found`));
  });

  it('has a case for each alert, and no other', () => {
    const alerts = [...readFileSync(RULES, 'utf8').matchAll(/^ *- alert: (\w+)$/gm)].map(([, name]) => name);
    assert.deepEqual([...new Set(CASES.map(({ alert }) => alert))].sort(), alerts.sort());
  });
});
