import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { isDaemonListening, readDaemonStatus } from '../../../src/ctl/daemon-client.js';
import { formatBytes, formatDuration, formatTable } from '../../../src/ctl/text-table.js';
import { isOverlayError } from '../../../src/errors.js';
import { ctl } from '../../support/ctl.js';
import { sampleCommands, sampleContainerReach, sampleKernelCounters } from '../../support/sample-status.js';

const STATUS = {
  statusVersion: 1,
  version: 'v0.1.0',
  hostName: 'alpha',
  pid: 7,
  startedAt: '2026-01-01T00:00:00Z',
  uptimeSeconds: 100,
  containerReach: null,
  containerNetworks: null,
  isReady: false,
  notReadyBecause: ['no lease'],
  network: {
    ipv4: '10.5.0.0/16',
    ipv6: null,
    subnetLen: 24,
    ipv6SubnetLen: null,
    backend: 'udp',
    rejected: 'it is not JSON',
  },
  lease: null,
  underlay: null,
  mtu: null,
  backends: ['udp'],
  peers: [
    {
      subnet: '10.5.2.0/24',
      ipv6Subnet: null,
      publicIp: '192.0.2.2',
      publicIpv6: null,
      backend: 'udp',
      isReservation: false,
      traffic: { txPackets: 1, txBytes: 2048, rxPackets: 0, rxBytes: 0 },
      wireguard: [],
      skipped: null,
      reachability: [
        {
          family: 4,
          state: 'reachable',
          since: '2026-01-01T00:00:30.000Z',
          roundTripSeconds: 0.000_42,
          loss: 0.125,
          answeredBy: 'overlay',
          address: '10.5.2.0',
          errno: null,
        },
        {
          family: 6,
          state: 'unreachable',
          since: '2026-01-01T00:00:30.000Z',
          roundTripSeconds: null,
          loss: 1,
          answeredBy: null,
          address: 'fd00:10:5:2::',
          errno: 'ENETUNREACH',
        },
      ],
    },
    {
      subnet: '10.5.3.0/24',
      ipv6Subnet: null,
      publicIp: '192.0.2.3',
      publicIpv6: null,
      backend: 'wireguard',
      isReservation: false,
      traffic: null,
      wireguard: [],
      skipped: { cause: 'backend', reason: 'no such backend', hint: 'choose another' },
      reachability: [],
    },
    {
      subnet: '10.5.4.0/24',
      ipv6Subnet: 'fd00:10:5:4::/64',
      publicIp: '192.0.2.4',
      publicIpv6: '2001:db8::4',
      backend: 'wireguard',
      isReservation: false,
      traffic: null,
      skipped: null,
      reachability: [],
      wireguard: [
        { device: 'flannel-wg', lastHandshakeAt: '2026-01-01T00:00:00.000Z', txBytes: 2048, rxBytes: 1024 },
        { device: 'flannel-wg-v6', lastHandshakeAt: null, txBytes: 148, rxBytes: 0 },
      ],
    },
  ],
  wireguard: {
    keyFile: '/run/flannel/wgkey',
    isKeyFileOpen: false,
    publicKey: 'abc=',
    devices: [{ name: 'flannel-wg', listenPort: 51820, peers: 1 }],
  },
  peerSet: {
    isSynced: false,
    badKeys: ['.lock'],
    badKeyCount: 1,
    quarantined: [],
    quarantinedCounts: {},
    keptCount: 0,
    counters: {},
  },
  reachability: {
    error: null,
    intervalSeconds: 30,
    peers: { reachable: 0, unreachable: 1, unknown: 0 },
    probes: { answered: 7, lost: 3, failed: 0 },
    roundTrips: { buckets: [], sumSeconds: 0 },
  },
  devices: [
    {
      name: 'flannel0',
      isUp: true,
      mtu: 1472,
      txPackets: 0,
      txBytes: 4096,
      rxPackets: 0,
      rxBytes: 0,
      txDropped: 1,
      rxDropped: 2,
      txErrors: 0,
      rxErrors: 0,
    },
  ],
  tunnels: [
    {
      kind: 'native',
      device: 'flannel0',
      workers: 1,
      offloads: { vnetHdr: true, tso: true, uso: false, udpGro: false },
      disabledOffloads: ['udpGro'],
      generation: 1,
      counters: { drops: { short: 0, 'no-route': 5 }, downgrades: { uso: 1, udpGro: 0 } },
    },
  ],
  reconcile: {
    isConverged: false,
    conflicts: ['a route is in the way'],
    failures: [],
    blocked: 2,
    drift: { route: 3, link: 0 },
  },
  firewall: null,
  store: {
    isConnected: false,
    endpoint: null,
    error: 'refused',
    counters: { roundTrips: 9, errors: { ERR_ETCD_UNAVAILABLE: 2 } },
  },
  subnetFile: { path: '/run/flannel/subnet.env', writtenAt: null, error: null },
  savedState: null,
  dockerHint: 'restart Docker',
  problems: [{ at: '2026-01-01T00:00:01Z', level: 'warn', message: 'etcd away', detail: 'code=X', hint: 'look' }],
};

describe('tsflannelctl status', () => {
  let directory: string;
  let socket: string;
  let server: http.Server;
  let answers: (() => { readonly code: number; readonly body: string })[];

  beforeEach(async () => {
    directory = mkdtempSync(path.join(tmpdir(), 'tsflannelctl-status-'));
    socket = path.join(directory, 's');
    answers = [];
    server = http.createServer((request, response) => {
      if (request.url === '/settings') {
        response.writeHead(404).end(); // a daemon of an earlier release
        return;
      }
      const { code, body } = (answers.shift() ?? ((): never => assert.fail('one question too many')))();
      response.writeHead(code).end(body);
    });
    await new Promise<void>((resolve) => server.listen(socket, resolve));
  });

  afterEach(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });

  const answer = (status: object): void => void answers.push(() => ({ code: 200, body: JSON.stringify(status) }));

  it('tells what is missing, what is dropped, repaired and in the way', async () => {
    answer(STATUS);
    const { code, stdout } = await ctl(['status', '--status-socket', socket]);
    assert.equal(code, 0);
    for (const line of [
      /not ready: no lease$/m,
      /^wireguard +public key abc= of \/run\/flannel\/wgkey; flannel-wg on UDP port 51820$/m,
      /^10\.5\.4\.0\/24 .* wireguard +- +2\.1 KiB +1\.0 KiB +flannel-wg handshake 1m 40s ago; flannel-wg-v6 NO handshake$/m,
      /the configuration in etcd is not used: it is not JSON/,
      /^etcd +not connected: refused; 9 requests, 2 errors$/m,
      /^docker +restart Docker$/m,
      /^flannel0 +up +1472 +4\.0 KiB +0 B +3 +0$/m,
      /^offloads +vnetHdr, tso$/m,
      /^not in use +uso \(refused by the kernel, tried again later\), udpGro \(switched off\)$/m,
      /^drops +no-route 5$/m,
      /^3 peers, 1 of them does not answer, as known before the start/m,
      /^10\.5\.2\.0\/24 +192\.0\.2\.2 +udp +IPv4 0\.42 ms, 13 % lost; IPv6 NO for 1m 10s \(ENETUNREACH\) +2\.0 KiB/m,
      /^10\.5\.3\.0\/24 .* not reached: no such backend; choose another$/m,
      /^unreadable lease \.lock$/m,
      /^kernel +not as desired, 2 objects wait$/m,
      /^repaired +route 3$/m,
      /^in the way +a route is in the way$/m,
      /warn etcd away: code=X; look$/m,
    ]) {
      assert.match(stdout, line);
    }
  });

  it('tells what the host works with while etcd has not confirmed its lease', async () => {
    const savedState = { subnet: '10.5.1.0/24', savedAt: '2026-03-01T10:00:00.000Z', leaseEndsAt: null };
    answer({ ...STATUS, savedState: { ...savedState, isolatedBecause: null } });
    const { stdout } = await ctl(['status', '--status-socket', socket]);
    assert.match(
      stdout,
      /^lease +10\.5\.1\.0\/24, saved at 2026-03-01T10:00:00\.000Z and not yet confirmed: etcd does not answer$/m,
    );
    answer({ ...STATUS, savedState: { ...savedState, isolatedBecause: 'its lease ended' } });
    const isolated = await ctl(['status', '--status-socket', socket]);
    assert.match(isolated.stdout, /^ +nothing is sent to other hosts: its lease ended$/m);
  });

  it('shows which commands of a backend fail, with what they wrote last', async () => {
    answer({ ...STATUS, commands: sampleCommands() });
    const { stdout } = await ctl(['status', '--status-socket', socket]);
    assert.match(stdout, /^commands +running, done for 3 peers, 1 waiting, 1 failing$/m);
    const failing = 'SubnetAddCommand for 10.100.2.0/24: exit status 2: RTNETLINK answers: File exists (4 times)';
    assert.ok(stdout.includes(failing), stdout);
  });

  it('shows what a daemon of an earlier release tells, which has not probed anybody', async () => {
    const peers = STATUS.peers.map((peer) => ({ ...peer, reachability: undefined }));
    answer({ ...STATUS, reachability: undefined, peers });
    const { code, stdout } = await ctl(['status', '--status-socket', socket]);
    assert.equal(code, 0);
    assert.match(stdout, /^10\.5\.2\.0\/24 +192\.0\.2\.2 +udp +- +2\.0 KiB +0 B/m);
  });

  it('says which way packets leave, and why the kernel carries none', async () => {
    const [peer] = STATUS.peers;
    const [tunnel] = STATUS.tunnels;
    const status = (kernelPath: object, carrier: object): object => ({
      ...STATUS,
      peers: [{ ...peer, carrier }],
      tunnels: [{ ...tunnel, kernelPath }],
    });
    const counters = {
      ...sampleKernelCounters(),
      sent: { packets: 2, bytes: 2048 },
      received: { packets: 1, bytes: 1000 },
    };
    answer(status({ isActive: true, receiver: 'xdp', refused: null, counters }, { carrier: 'kernel' }));
    const active = await ctl(['status', '--status-socket', socket]);
    assert.match(active.stdout, /^kernel path +xdp, 2\.0 KiB sent, 1000 B received$/m);
    assert.match(active.stdout, /^10\.5\.2\.0\/24 .* by the kernel path$/m);
    const refused = { isDemanded: true, reason: 'driver', detail: 'eth0 takes no program', hint: 'lower the MTU' };
    const way = { carrier: 'tunnel', because: 'not-announced' };
    answer(status({ isActive: false, receiver: null, refused, counters: null }, way));
    const inactive = await ctl(['status', '--status-socket', socket]);
    assert.match(inactive.stdout, /^kernel path +NO \(driver\): eth0 takes no program; lower the MTU$/m);
    assert.match(inactive.stdout, /^10\.5\.2\.0\/24 .* by the tunnel: the peer announces no kernel path$/m);
  });

  it('says how many containers of other hosts are reached, and how many are not', async () => {
    answer({ ...STATUS, containerReach: sampleContainerReach() });
    const { stdout } = await ctl(['status', '--status-socket', socket]);
    assert.match(
      stdout,
      /^elsewhere +containers of other hosts: 34 prefixes through the overlay, 12 directly, 3 NOT reached, 1 not believed$/m,
    );
    const none = { skipped: [], unplaced: [], refused: [] };
    const zeros = (counts: object): object => Object.fromEntries(Object.keys(counts).map((key) => [key, 0]));
    const { skippedByCause, refusedByReason } = sampleContainerReach();
    const nothing = {
      ...none,
      routed: { direct: 0, overlay: 0 },
      unplacedPrefixes: 0,
      skippedByCause: zeros(skippedByCause),
      refusedByReason: zeros(refusedByReason),
    };
    answer({ ...STATUS, containerReach: nothing });
    assert.doesNotMatch((await ctl(['status', '--status-socket', socket])).stdout, /elsewhere/);
  });

  it('shows rates between two looks, until it is interrupted', async () => {
    const interruption = new AbortController();
    answer(STATUS);
    answer({ ...STATUS, uptimeSeconds: 102, devices: [{ ...STATUS.devices[0], txBytes: 4096 + 6144 }] });
    let looks = 0;
    const { code, stdout } = await ctl(['status', '--watch', '--interval=1', '--status-socket', socket], {
      signal: interruption.signal,
      onOutput: () => {
        if (++looks === 2) interruption.abort();
      },
    });
    assert.equal(code, 0);
    assert.match(stdout, /^flannel0 +up +1472 +10\.0 KiB \(3\.0 KiB\/s\)/m);
  });

  it('prints one document per line when watching as JSON', async () => {
    const interruption = new AbortController();
    answer(STATUS);
    const { stdout } = await ctl(['status', '--watch', '--json', '--status-socket', socket], {
      signal: interruption.signal,
      onOutput: () => interruption.abort(),
    });
    assert.deepEqual(JSON.parse(stdout), { daemon: STATUS });
    assert.equal(stdout.indexOf('\n'), stdout.length - 1);
  });

  for (const { what, body, code, reason } of [
    { what: 'no JSON', body: 'hello', code: 200, reason: /its answer is not JSON/ },
    { what: 'a later version', body: '{"statusVersion":2}', code: 200, reason: /version 2, not 1/ },
    { what: 'an error', body: '', code: 500, reason: /answers \/status with 500/ },
  ]) {
    it(`takes ${what} for a daemon that runs and cannot be asked`, async () => {
      answers.push(() => ({ code, body }));
      answers.push(() => ({ code, body }));
      await assert.rejects(
        readDaemonStatus(socket),
        (error) => isOverlayError(error, 'ERR_DAEMON_UNREACHABLE') && reason.test(error.message),
      );
      assert.equal(await isDaemonListening(socket), true);
    });
  }

  it('takes a socket that a dead daemon left for none', async () => {
    assert.equal(await isDaemonListening(path.join(directory, 'none')), false);
  });
});

describe('the text of tables', () => {
  it('aligns columns and shows what is empty', () => {
    assert.equal(
      formatTable(
        ['A', 'LONG'],
        [
          ['xyz', ''],
          ['', 'b'],
        ],
      ),
      'A    LONG\nxyz  -\n-    b\n',
    );
  });

  for (const [seconds, text] of [
    [0, '0s'],
    [59.6, '1m'],
    [3599, '59m 59s'],
    [3600, '1h'],
    [86_399, '23h 59m'],
    [90_000, '1d 1h'],
    [-5, '0s'],
  ] as const) {
    it(`writes ${seconds} s as ${text}`, () => assert.equal(formatDuration(seconds), text));
  }

  it('writes bytes with a binary unit', () => {
    assert.deepEqual([0, 1023, 1024, 1536 * 1024].map(formatBytes), ['0 B', '1023 B', '1.0 KiB', '1.5 MiB']);
  });
});
