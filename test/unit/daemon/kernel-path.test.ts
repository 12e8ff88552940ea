import assert from 'node:assert/strict';
import { closeSync, fstatSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { OverlayResult } from '../../../src/backend/overlay-state.js';
import { describeKernelPath, peerCarriers } from '../../../src/daemon/kernel-path-status.js';
import { withdrawKernelPath } from '../../../src/daemon/kernel-path-remains.js';
import { storeTunnels } from '../../../src/daemon/tunnel-store.js';
import type { KernelPath, KernelPathState } from '../../../src/dataplane/kernel-path.js';
import type { Tunnel } from '../../../src/dataplane/tunnel.js';
import { KERNEL_PATH_DATA } from '../../../src/lease/kernel-announcement.js';
import { silentLogger } from '../../../src/log.js';
import { FormerValuesInMemory } from '../../../src/reconcile/former-values.js';
import { ServiceManager } from '../../../src/systemd/notify.js';
import { lease, tunnelSpec } from '../../support/builders.js';
import { FakeClock } from '../../support/fake-clock.js';
import { NotifySocket } from '../../support/notify-socket.js';

const ACTIVE: KernelPathState = { isActive: true, receiver: 'xdp' };
const REFUSED: KernelPathState = {
  isActive: false,
  isDemanded: true,
  reason: 'driver',
  detail: 'eth0',
  hint: 'do something',
};

function tunnelWith(state: KernelPathState | undefined, descriptors = { maps: [0], links: [1, 2] }): Tunnel {
  const kernelPath: KernelPath | undefined = state && { state, counters: () => undefined, descriptors };
  const tunnel = { device: 'flannel0', descriptors: () => ({ tun: [0], socket: [1] }), kernelPath };
  return tunnel as unknown as Tunnel;
}

describe('the way to a peer', () => {
  const announcing = lease(2, { data: KERNEL_PATH_DATA });
  const far = lease(3, { data: KERNEL_PATH_DATA });
  const peers = [announcing, far].map(({ subnet, attributes: { publicIp } }, index) => ({
    subnet,
    publicIp,
    ...(index === 0 && { isKernelPeer: true }),
  }));
  const overlay = { base: { tunnels: [tunnelSpec({ peers })] } } as unknown as OverlayResult;
  const carrierOf = (state: KernelPathState | undefined): ReturnType<typeof peerCarriers> =>
    peerCarriers([tunnelWith(state)], overlay);

  it('is told with what keeps the kernel from it', () => {
    const carrier = carrierOf(ACTIVE);
    assert.deepEqual(carrier(announcing), { carrier: 'kernel' });
    assert.deepEqual(carrier(far), { carrier: 'tunnel', because: 'off-link' });
    assert.deepEqual(carrier(lease(4)), { carrier: 'tunnel', because: 'not-announced' });
    assert.deepEqual(carrierOf(REFUSED)(announcing), { carrier: 'tunnel', because: 'refused' });
  });

  it('is nothing to tell of where the kernel is not asked to, or another backend carries packets', () => {
    assert.equal(carrierOf(undefined)(announcing), null);
    assert.equal(carrierOf(ACTIVE)(lease(5, { type: 'vxlan', data: KERNEL_PATH_DATA })), null);
  });

  it('is described for the host as well', () => {
    assert.equal(describeKernelPath(undefined), null);
    assert.deepEqual(describeKernelPath(tunnelWith(REFUSED).kernelPath), {
      isActive: false,
      receiver: null,
      refused: { isDemanded: true, reason: 'driver', detail: 'eth0', hint: 'do something' },
      counters: null,
    });
    assert.equal(describeKernelPath(tunnelWith(ACTIVE).kernelPath)?.receiver, 'xdp');
  });
});

describe('what is left of the kernel path with the service manager', () => {
  let directory: string;
  let socket: NotifySocket;
  let clock: FakeClock;
  let service: ServiceManager;

  beforeEach(() => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'tsflannel-notify-'));
    socket = new NotifySocket(path.join(directory, 'notify'));
    clock = new FakeClock();
    const environment = { NOTIFY_SOCKET: socket.name };
    service = new ServiceManager({ environment, pid: process.pid, clock, logger: silentLogger });
  });
  afterEach(() => {
    service.close();
    socket.close();
    rmSync(directory, { recursive: true });
  });

  /** What the service manager was told, with how many descriptors. */
  const told = (): string[] =>
    socket.receiveAll().map(({ text, descriptors }) => {
      for (const fd of descriptors) closeSync(fd);
      const name = /^FDNAME=(.*)$/m.exec(text)?.[1] ?? '';
      return text.startsWith('FDSTOREREMOVE') ? `-${name}` : `+${name} ${descriptors.length}`;
    });

  it('takes the place of what was there, once, and again when it is another one', () => {
    const tunnel = tunnelWith(ACTIVE);
    storeTunnels(service, [tunnel]);
    assert.deepEqual(told(), [
      ...['+tun.flannel0 1', '+udp.flannel0 1'],
      ...['-bpf-map.flannel0', '+bpf-map.flannel0 1', '-bpf-link.flannel0', '+bpf-link.flannel0 2'],
    ]);
    storeTunnels(service, [tunnel]);
    assert.deepEqual(told(), []);
    Object.assign(tunnel, { kernelPath: { ...tunnel.kernelPath, descriptors: { maps: [], links: [] } } });
    storeTunnels(service, [tunnel]);
    assert.deepEqual(
      told().filter((line) => line.startsWith('+')),
      [],
    );
    storeTunnels(service, []);
    assert.deepEqual(told().slice(0, 2), ['-tun.flannel0', '-udp.flannel0']);
  });

  it('stays until peers have been told, where the next process does not use it', async () => {
    const fd = openSync('/dev/null', 'r');
    const inherited = new Map([['flannel0', { tun: [3], socket: [4], kernelPath: { maps: [fd], links: [] } }]]);
    const tunnels = withdrawKernelPath(inherited, { clock, service, former: new FormerValuesInMemory() });
    assert.deepEqual([...tunnels], [['flannel0', { tun: [3], socket: [4] }]]);
    await clock.advance(4000);
    assert.deepEqual(told(), []);
    fstatSync(fd);
    await clock.advance(2000);
    assert.deepEqual(told(), ['-bpf-map.flannel0', '-bpf-link.flannel0']);
    assert.throws(() => fstatSync(fd), /EBADF/);
  });
});
