import assert from 'node:assert/strict';
import { fstatSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { KERNEL_COUNTERS, type KernelPathState } from '../../../src/dataplane/kernel-path.js';
import { type UplinkLink, kernelTunnels, restoreGro } from '../../../src/dataplane/kernel-tunnel.js';
import type { KernelPathOptions } from '../../../src/dataplane/native.js';
import type { InheritedTunnel, Tunnel } from '../../../src/dataplane/tunnel.js';
import type { TunnelSpec } from '../../../src/dataplane/tunnel-spec.js';
import { duplicate } from '../../../src/sys/libc.js';
import { FormerValuesInMemory } from '../../../src/reconcile/former-values.js';
import { ip, net, tunnelSpec } from '../../support/builders.js';
import { FakeClock, settle } from '../../support/fake-clock.js';
import { FakeKernel } from '../../support/fake-kernel.js';
import { FakeTunnel } from '../../support/fake-tunnel.js';

const EPERM = 1;
const EACCES = 13;
const EBUSY = 16;
const EEXIST = 17;
const ENOSPC = 28;
const ERANGE = 34;
const EOPNOTSUPP = 95;
const XDP = 'attach XDP program';
const TC = 'attach tc program';

const UPLINK = { device: 'eth0', index: 2 };
const SPEC = tunnelSpec({
  uplink: UPLINK,
  peers: [
    { subnet: net('10.5.2.0/24'), publicIp: ip('192.0.2.2') },
    { subnet: net('10.5.3.0/24'), publicIp: ip('192.0.2.3'), isKernelPeer: true },
  ],
});

/** What the addon throws. */
function failure(operation: string, errno: number): Error {
  return Object.assign(new Error(operation), { operation, errno, detail: '' });
}

/** A descriptor that is open as long as this process is; what stands for maps is duplicated. */
const FILE = 0;
const LINK = 102;

/** Stands for the programs in the kernel. */
class FakePath {
  readonly calls: string[] = [];
  readonly bulkMs: number[] = [];
  readonly numbers = new Float64Array(2 * KERNEL_COUNTERS.length);
  routes: readonly number[];
  failNext: Error | undefined;
  inPlace = true;

  constructor(readonly options: KernelPathOptions) {
    this.routes = [...options.routes];
  }

  setRoutes({ routes }: { readonly routes: Uint32Array }): void {
    if (this.failNext !== undefined) throw this.failNext;
    this.routes = [...routes];
  }

  leaveBulk(ms: number): void {
    this.bulkMs.push(ms);
  }

  counters(): Float64Array {
    return this.numbers;
  }

  peerCounters(): Float64Array {
    return Float64Array.of(Number(ip('192.0.2.3').value), 1, 2, 3, 4);
  }

  mapDescriptors(): number[] {
    return [FILE];
  }

  linkDescriptors(): number[] {
    return [LINK];
  }

  isInPlace(): boolean {
    return this.inPlace;
  }

  detach(): Promise<void> {
    this.calls.push('detach');
    return Promise.resolve();
  }

  close(): void {
    this.calls.push('close');
  }
}

describe('the tunnel with the kernel path', () => {
  let directory: string;
  let programsFile: string;
  let clock: FakeClock;
  let links: Map<string, UplinkLink>;
  let former: FormerValuesInMemory;
  let gro: Map<string, number>;
  let paths: FakePath[];
  let states: KernelPathState[];
  /** What the kernel answers, by receiver. */
  let refusals: (Error | undefined)[];
  let keepsDescriptors: boolean;
  let leavesBulk: boolean;
  /** Whether the kernel tells of devices. */
  let canAsk: boolean;
  /** What happens before the kernel has attached the programs. */
  let whileOpening: (() => Promise<void>) | undefined;

  before(() => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'tsflannel-kernel-tunnel-'));
  });
  after(() => {
    rmSync(directory, { recursive: true });
  });
  beforeEach(() => {
    programsFile = path.join(directory, 'programs.o');
    writeFileSync(programsFile, 'programs');
    clock = new FakeClock();
    const device = { kind: '', mac: '02:00:00:00:00:01', masterIndex: 0 };
    links = new Map([
      ['eth0', { ...device, index: 2 }],
      ['eth1', { ...device, index: 3 }],
      ['flannel0', { ...device, index: 9, kind: 'tun', mac: undefined }],
    ]);
    former = new FormerValuesInMemory();
    gro = new Map();
    paths = [];
    states = [];
    refusals = [];
    keepsDescriptors = false;
    leavesBulk = false;
    whileOpening = undefined;
    canAsk = true;
  });

  const fakeGro = {
    read: (name: string): number => gro.get(name) ?? 1,
    set: (name: string, isOn: boolean): number => {
      if (gro.get('refuses') === 1) return -EOPNOTSUPP;
      gro.set(name, Number(isOn));
      return 0;
    },
  };

  /** @returns as soon as the kernel path has begun, or was refused. */
  const open = async (spec?: TunnelSpec): Promise<Tunnel> => {
    const tunnel = await begin(spec);
    await settle();
    return tunnel;
  };
  const begin = async (spec: TunnelSpec = SPEC, inherited?: InheritedTunnel): Promise<Tunnel> => {
    const host = {
      clock,
      linkOf: (name: string) => {
        if (!canAsk) throw new Error('no buffers');
        return links.get(name);
      },
      former,
      keepsDescriptors,
      leavesBulk,
      programsFile,
      gro: fakeGro,
      open: async (options: KernelPathOptions) => {
        await whileOpening?.();
        const refused = refusals[options.receiver];
        if (refused !== undefined) throw refused;
        paths.push(new FakePath(options));
        return paths.at(-1) as FakePath;
      },
    };
    const kernel = new FakeKernel();
    const onEvent = (event: { type: string }): void => {
      if ('state' in event) states.push(event.state as KernelPathState);
    };
    const native = (options: ConstructorParameters<typeof FakeTunnel>[0]): Promise<Tunnel> =>
      Promise.resolve(FakeTunnel.open(options, kernel));
    return kernelTunnels(
      host,
      native,
    )({ spec, workers: 1, disabledOffloads: [], onEvent, ...(inherited && { inherited }) });
  };

  const refusal = async (): Promise<string | undefined> => {
    const { kernelPath } = await open();
    assert.deepEqual(
      states.map(({ isActive }) => isActive),
      [false],
    );
    return kernelPath?.state?.isActive === false ? kernelPath.state.reason : undefined;
  };

  it('attaches before GRO where the driver can, and tells so once', async () => {
    const { kernelPath } = await open();
    assert.deepEqual(kernelPath?.state, { isActive: true, receiver: 'xdp' });
    assert.deepEqual(states, [{ isActive: true, receiver: 'xdp' }]);
    assert.deepEqual(kernelPath.descriptors, { maps: [FILE], links: [LINK] });
    const [{ options } = {}] = paths;
    assert.deepEqual([options?.uplink, options?.tun, options?.port], [2, 9, 8285]);
  });

  it('gives the programs every peer, an MTU for those whose kernel receives, and own subnets last', async () => {
    await open();
    const number = (text: string): number => Number(ip(text).value);
    assert.deepEqual(paths[0]?.routes, [
      ...[number('10.5.2.0'), 24, number('192.0.2.2'), 0],
      ...[number('10.5.3.0'), 24, number('192.0.2.3'), 1472],
      ...[number('10.5.1.0'), 24, 0, 0],
      ...[number('192.0.2.1'), 32, 0, 0],
    ]);
  });

  for (const errno of [EOPNOTSUPP, ERANGE, ENOSPC]) {
    it(`attaches behind GRO where the driver says ${errno}`, async () => {
      refusals = [failure(XDP, errno)];
      assert.deepEqual((await open()).kernelPath?.state, { isActive: true, receiver: 'tc' });
      assert.equal(paths[0]?.options.receiver, 1);
    });
  }

  for (const errno of [EBUSY, EEXIST]) {
    it(`leaves the uplink to another program (${errno})`, async () => {
      refusals = [failure(XDP, errno)];
      assert.equal(await refusal(), 'foreign-program');
    });
  }

  it('tells what is missing', async () => {
    refusals = [failure('BPF_MAP_CREATE', EPERM)];
    assert.equal(await refusal(), 'not-permitted');
    states = [];
    refusals = [failure('BPF_PROG_LOAD', EACCES)];
    assert.equal(await refusal(), 'kernel');
    states = [];
    refusals = [failure(XDP, EOPNOTSUPP), failure(TC, EOPNOTSUPP)];
    assert.equal(await refusal(), 'driver');
    states = [];
    rmSync(programsFile);
    assert.equal(await refusal(), 'programs-missing');
  });

  for (const [what, link] of [
    ['a bridge', { kind: 'bridge' }],
    ['a bond', { kind: 'bond' }],
    ['a VLAN', { kind: 'vlan' }],
    ['a port of another device', { masterIndex: 7 }],
    ['no Ethernet device', { mac: undefined }],
  ] as const) {
    it(`is not used where the uplink is ${what}`, async () => {
      links.set('eth0', { index: 2, kind: '', mac: '02:00:00:00:00:01', masterIndex: 0, ...link });
      assert.equal(await refusal(), 'uplink-kind');
      assert.deepEqual(paths, []);
    });
  }

  it('tries again every minute, and tells only what is new', async () => {
    refusals = [failure(XDP, EBUSY)];
    const tunnel = await open();
    await clock.advance(300_000);
    assert.equal(states.length, 1);
    refusals = [];
    await clock.advance(60_000);
    await settle();
    assert.deepEqual(tunnel.kernelPath?.state, { isActive: true, receiver: 'xdp' });
    assert.equal(states.length, 2);
  });

  it('leaves off trying once another uplink has what the former one had not', async () => {
    refusals = [failure(XDP, EBUSY)];
    const tunnel = await open();
    refusals = [];
    assert.ok(tunnel.update({ ...SPEC, uplink: { device: 'eth1', index: 3 } }));
    await settle();
    await clock.advance(300_000);
    assert.equal(paths.length, 1);
    await tunnel.close();
    assert.equal(clock.pending, 0);
  });

  it('attaches again, and goes on counting, where its programs are gone though the device is there', async () => {
    const tunnel = await open();
    const [first] = paths;
    assert.ok(first !== undefined);
    await clock.advance(60_000);
    assert.equal(paths.length, 1);
    first.inPlace = false;
    await clock.advance(5000);
    await settle();
    assert.deepEqual(first.calls, ['detach']);
    assert.equal(paths[1]?.options.inheritedMaps.length, 1);
    assert.deepEqual(states, [
      { isActive: true, receiver: 'xdp' },
      { isActive: true, receiver: 'xdp' },
    ]);
    await clock.advance(60_000);
    assert.equal(paths.length, 2);
    await tunnel.close();
    assert.equal(clock.pending, 0);
  });

  it('waits for its uplink while that is gone', async () => {
    await open();
    const [first] = paths;
    assert.ok(first !== undefined);
    first.inPlace = false;
    const uplink = links.get('eth0');
    assert.ok(uplink !== undefined);
    links.delete('eth0');
    await clock.advance(60_000);
    assert.deepEqual([first.calls, states.length], [[], 1]);
    links.set('eth0', uplink);
    await clock.advance(5000);
    await settle();
    assert.equal(paths.length, 2);
  });

  it('says nothing of itself until it is known, and takes over at once what another process has left', async () => {
    const counters: unknown[] = [];
    whileOpening = () => new Promise((resolve) => setTimeout(resolve, 5));
    const tunnel = await begin();
    counters.push(tunnel.kernelPath?.state, tunnel.kernelPath?.counters());
    assert.deepEqual([counters, states], [[undefined, undefined], []]);
    await tunnel.close();
    assert.deepEqual(paths[0]?.calls, ['detach']);
    const kernelPath = { maps: [duplicate(FILE)], links: [duplicate(FILE)] };
    const successor = await begin(SPEC, { tun: [], socket: [], kernelPath });
    assert.equal(successor.kernelPath?.state?.isActive, true);
    assert.deepEqual(
      [paths[1]?.options.inheritedMaps, paths[1]?.options.inheritedLinks],
      [kernelPath.maps, kernelPath.links],
    );
    for (const fd of [...kernelPath.maps, ...kernelPath.links]) assert.throws(() => fstatSync(fd), /EBADF/);
    await successor.close();
  });

  it('knows the peers that came while the programs were attached', async () => {
    let finish = (): void => {};
    whileOpening = () => new Promise((resolve) => (finish = resolve));
    const tunnel = await open();
    assert.ok(tunnel.update({ ...SPEC, peers: [] }));
    finish();
    await settle();
    assert.equal(paths[0]?.routes.length, 8);
  });

  it('is attached once only, and where the uplink is at the end, however often it moves meanwhile', async () => {
    const tunnel = await begin();
    assert.ok(tunnel.update({ ...SPEC, uplink: { device: 'eth1', index: 3 } }));
    assert.ok(tunnel.update({ ...SPEC, uplink: UPLINK }));
    assert.ok(tunnel.update({ ...SPEC, uplink: { device: 'eth1', index: 3 } }));
    await settle();
    const left = paths.filter(({ calls }) => !calls.includes('detach'));
    assert.deepEqual(
      left.map(({ options }) => options.uplink),
      [3],
    );
    await tunnel.close();
    assert.ok(paths.every(({ calls }) => calls.includes('detach')));
    assert.equal(clock.pending, 0);
  });

  it('leaves nothing behind when it is closed while the programs are attached', async () => {
    whileOpening = settle;
    const tunnel = await begin();
    await tunnel.close();
    assert.deepEqual(
      paths.map(({ calls }) => calls),
      [['detach']],
    );
    assert.equal(clock.pending, 0);
  });

  it('goes on showing what was counted while the programs move', async () => {
    const tunnel = await open();
    paths[0]?.numbers.set([5, 500], 2 * KERNEL_COUNTERS.indexOf('sent'));
    const seen: (number | undefined)[] = [];
    whileOpening = () => {
      seen.push(tunnel.counters().txPackets, tunnel.peerCounters().get('192.0.2.3')?.txPackets);
      return Promise.resolve();
    };
    assert.ok(tunnel.update({ ...SPEC, uplink: { device: 'eth1', index: 3 } }));
    await settle();
    assert.deepEqual([seen, paths.length], [[5, 1], 2]);
    assert.equal(tunnel.counters().txPackets, 0);
  });

  it('counts both ways together, by peer too', async () => {
    const tunnel = await open();
    paths[0]?.numbers.set([5, 500], 2 * KERNEL_COUNTERS.indexOf('sent'));
    paths[0]?.numbers.set([6, 600], 2 * KERNEL_COUNTERS.indexOf('received'));
    const { txPackets, txBytes, rxPackets, rxBytes } = tunnel.counters();
    assert.deepEqual([txPackets, txBytes, rxPackets, rxBytes], [5, 500, 6, 600]);
    assert.deepEqual(tunnel.peerCounters().get('192.0.2.3'), { txPackets: 1, txBytes: 2, rxPackets: 3, rxBytes: 4 });
    assert.deepEqual(tunnel.kernelPath?.counters()?.sent, { packets: 5, bytes: 500 });
  });

  it('hands new peers to the programs, and moves with the uplink', async () => {
    const tunnel = await open();
    assert.ok(tunnel.update({ ...SPEC, peers: [] }));
    assert.equal(paths[0]?.routes.length, 8);
    assert.ok(tunnel.update({ ...SPEC, uplink: { device: 'eth1', index: 3 } }));
    await settle();
    assert.deepEqual(paths[0].calls, ['detach']);
    assert.equal(paths[1]?.options.uplink, 3);
  });

  it('carries nothing by what it could not tell the programs', async () => {
    const tunnel = await open();
    const [first] = paths;
    assert.ok(first !== undefined);
    first.failNext = failure('BPF_MAP_UPDATE_ELEM', ENOSPC);
    assert.ok(tunnel.update({ ...SPEC, mtu: 1400 }));
    await settle();
    assert.deepEqual(first.calls, ['detach']);
    assert.equal(tunnel.kernelPath?.state?.isActive, false);
  });

  it('switches GRO on where it is off, and back when it goes', async () => {
    gro.set('eth0', 0);
    const tunnel = await open();
    assert.equal(gro.get('eth0'), 1);
    assert.deepEqual([...former.entries], [['gro eth0', { former: '0', value: '1' }]]);
    await tunnel.close();
    assert.equal(gro.get('eth0'), 0);
    assert.equal(former.entries.size, 0);
  });

  it('attaches behind GRO alone where bulk is left to the tunnel, and puts back what another run has changed', async () => {
    await open();
    gro.set('eth0', 1);
    former.remember('gro eth0', { former: '0', value: '1' });
    leavesBulk = true;
    assert.deepEqual((await open()).kernelPath?.state, { isActive: true, receiver: 'tc' });
    assert.deepEqual(
      paths.map(({ options, bulkMs }) => [options.receiver, bulkMs]),
      [
        [0, [0]],
        [1, [2000]],
      ],
    );
    assert.equal(gro.get('eth0'), 0);
  });

  it('leaves bulk to the tunnel as long as its process lives', async () => {
    [leavesBulk, keepsDescriptors] = [true, true];
    const tunnel = await open();
    await clock.advance(1000);
    assert.deepEqual(paths[0]?.bulkMs, [2000, 2000, 2000]);
    await tunnel.close(true);
    assert.deepEqual(paths[0].bulkMs.at(-1), 0);
    assert.equal(clock.pending, 0);
  });

  it('stops telling programs that are gone what to leave', async () => {
    leavesBulk = true;
    const tunnel = await open();
    assert.ok(tunnel.update({ ...SPEC, uplink: { device: 'eth1', index: 3 } }));
    await settle();
    await clock.advance(1000);
    assert.deepEqual(
      paths.map(({ bulkMs }) => bulkMs.length),
      [1, 3],
    );
    await tunnel.close();
    assert.equal(clock.pending, 0);
  });

  it('tells a refusal of what was asked for from one of what would have been better', async () => {
    const isDemanded = async (): Promise<unknown> => {
      const state = (await open()).kernelPath?.state;
      return state?.isActive === false && state.isDemanded;
    };
    refusals = [failure(XDP, EBUSY), failure(TC, EBUSY)];
    assert.equal(await isDemanded(), true);
    leavesBulk = true;
    assert.equal(await isDemanded(), false);
  });

  it('leaves GRO alone where it is on, and where somebody has switched it off since', async () => {
    const tunnel = await open();
    await tunnel.close();
    assert.ok(!gro.has('eth0'));
    gro.set('eth0', 0);
    await open();
    gro.set('eth0', 0);
    assert.deepEqual(restoreGro(former, fakeGro), []);
    assert.equal(former.entries.size, 0);
  });

  it('leaves GRO alone on a device that has only the name of the one where it was switched on', async () => {
    gro.set('eth0', 0);
    const tunnel = await open();
    const uplink = links.get('eth0');
    assert.ok(uplink !== undefined);
    links.set('eth0', { ...uplink, index: 12 });
    assert.ok(tunnel.update({ ...SPEC, uplink: { device: 'eth0', index: 12 } }));
    await tunnel.close();
    assert.deepEqual([gro.get('eth0'), former.entries.size], [1, 0]);
  });

  it('is not used where GRO cannot be had', async () => {
    gro.set('eth0', 0).set('refuses', 1);
    assert.equal(await refusal(), 'gro');
    assert.deepEqual(paths[0]?.calls, ['detach']);
    assert.equal(former.entries.size, 0);
  });

  it('is not used where nobody could put GRO back', async () => {
    gro.set('eth0', 0);
    former.remember = () => {
      throw new Error('disk full');
    };
    assert.equal(await refusal(), 'gro');
    assert.deepEqual([paths[0]?.calls, gro.get('eth0')], [['detach'], 0]);
  });

  it('outlives what cannot be asked of the kernel, and tries again', async () => {
    const tunnel = await open();
    canAsk = false;
    assert.ok(tunnel.update({ ...SPEC, uplink: { device: 'eth1', index: 3 } }));
    await settle();
    assert.deepEqual(states.at(-1)?.isActive, false);
    canAsk = true;
    await clock.advance(60_000);
    assert.equal(tunnel.kernelPath?.state?.isActive, true);
    assert.deepEqual(
      paths.map(({ options, calls }) => [options.uplink, calls]),
      [
        [2, ['detach']],
        [3, []],
      ],
    );
    await tunnel.close();
    assert.equal(clock.pending, 0);
  });

  it('goes when it is closed, and stays at the end of a process that somebody keeps the descriptors of', async () => {
    await (await open()).close(true);
    keepsDescriptors = true;
    await (await open()).close();
    gro.set('eth0', 0);
    await (await open()).close(true);
    assert.deepEqual(
      paths.map(({ calls }) => calls),
      [['detach'], ['detach'], ['close']],
    );
    assert.equal(gro.get('eth0'), 1);
  });
});
