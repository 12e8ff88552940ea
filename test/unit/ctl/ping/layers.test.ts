import assert from 'node:assert/strict';
import { type LayerResult, type PingPeer, judge, pingPaths } from '../../../../src/ctl/ping/layers.js';
import type { ProbeLayer } from '../../../../src/reach/targets.js';
import { ip, net } from '../../../support/builders.js';

function peer(changes: Partial<PingPeer> = {}): PingPeer {
  return {
    subnet: net('10.5.2.0/24'),
    ipv6Subnet: undefined,
    publicIp: ip('192.0.2.2'),
    publicIpv6: undefined,
    backend: 'vxlan',
    hostName: undefined,
    skipped: undefined,
    ...changes,
  };
}

const DUAL = { ipv6Subnet: net('fd00:10:5:2::/64'), publicIpv6: ip('2001:db8::2') };

const pathsOf = (...args: Parameters<typeof pingPaths>): string[] =>
  pingPaths(...args).map(({ targets }) => targets.map(({ layer, address }) => `${layer} ${address.toString()}`).join());

describe('pingPaths', () => {
  it('goes from the real network inwards', () => {
    assert.deepEqual(pathsOf(peer()), ['underlay 192.0.2.2,overlay 10.5.2.0,bridge 10.5.2.1']);
    assert.deepEqual(pathsOf(peer({ backend: 'host-gw' })), ['underlay 192.0.2.2,bridge 10.5.2.1']);
  });

  it('has one path for each family that peer and backend have', () => {
    assert.deepEqual(pathsOf(peer(DUAL)).at(1), 'underlay 2001:db8::2,overlay fd00:10:5:2::,bridge fd00:10:5:2::1');
    assert.equal(pathsOf(peer({ ...DUAL, backend: 'udp' })).length, 1);
    assert.equal(pathsOf(peer({ ...DUAL, publicIp: undefined })).length, 1);
    assert.deepEqual(pathsOf(peer({ backend: 'alloc' })), []);
  });

  it('ends at the container that was named, in its family', () => {
    assert.deepEqual(pathsOf(peer(DUAL), ip('10.5.2.7')), [
      'underlay 192.0.2.2,overlay 10.5.2.0,bridge 10.5.2.1,container 10.5.2.7',
    ]);
    assert.match(
      pathsOf(peer(DUAL), ip('fd00:10:5:2::7')).join(),
      /^underlay 2001:db8::2,.*,container fd00:10:5:2::7$/,
    );
  });

  it('asks the host’s own addresses once', () => {
    assert.deepEqual(pathsOf(peer(), ip('10.5.2.1')), pathsOf(peer()));
    assert.deepEqual(pathsOf(peer(), ip('10.5.2.0')), pathsOf(peer()));
  });
});

describe('judge', () => {
  const results = (given: PingPeer, answering: readonly ProbeLayer[], container?: string): readonly LayerResult[] =>
    (pingPaths(given, container === undefined ? undefined : ip(container))[0]?.targets ?? []).map((target) => ({
      ...target,
      sent: 3,
      received: answering.includes(target.layer) ? 1 : 0,
      roundTripMs: answering.includes(target.layer) ? 1 : undefined,
    }));

  for (const [backend, answering, container, stopsAt, hint] of [
    ['vxlan', ['underlay', 'overlay', 'bridge'], undefined, undefined, undefined],
    ['vxlan', ['overlay', 'bridge'], undefined, undefined, undefined],
    ['vxlan', ['bridge'], undefined, undefined, undefined],
    ['vxlan', ['underlay', 'overlay'], undefined, 'bridge', /systemctl status docker/],
    [
      'vxlan',
      ['underlay'],
      undefined,
      'overlay',
      /^UDP port 8472, or the one that Backend names, must pass .*ip route get 10\.5\.2\.0/,
    ],
    ['udp', ['underlay'], undefined, 'overlay', /8285/],
    ['ipip', ['underlay'], undefined, 'overlay', /^IP protocol 4/],
    ['vxlan', [], undefined, 'underlay', /leases release 10\.5\.2\.0\/24$/],
    ['host-gw', ['underlay', 'bridge'], undefined, undefined, undefined],
    ['host-gw', ['underlay'], undefined, 'bridge', /ip route get 10\.5\.2\.1 must name 192\.0\.2\.2/],
    ['host-gw', [], undefined, 'underlay', /is the host up/],
    ['vxlan', ['underlay', 'overlay', 'bridge', 'container'], '10.5.2.7', undefined, undefined],
    ['vxlan', ['container'], '10.5.2.7', undefined, undefined],
    ['vxlan', ['underlay', 'overlay', 'bridge'], '10.5.2.7', 'container', /packet filter.*ip route get 10\.5\.2\.7/],
    ['vxlan', ['underlay', 'overlay'], '10.5.2.7', 'container', /docker ps/],
    ['vxlan', ['underlay'], '10.5.2.7', 'overlay', /8472/],
  ] as const) {
    const to = container === undefined ? '' : ' to a container';
    it(`with ${backend}${to}, ${answering.join(', ') || 'nobody'} answering: ${stopsAt ?? 'no'} stop`, () => {
      const given = peer({ backend });
      const verdict = judge(given, results(given, answering, container));
      assert.equal(verdict.stopsAt, stopsAt);
      if (hint === undefined) assert.equal(verdict.hint, undefined);
      else assert.match(verdict.hint ?? '', hint);
    });
  }

  it('repeats why the daemon sends a peer nothing', () => {
    const given = peer({ skipped: { reason: 'its lease has no VtepMAC', hint: 'restart the daemon there' } });
    const verdict = judge(given, results(given, ['underlay']));
    assert.deepEqual(verdict, {
      stopsAt: 'overlay',
      message: 'this host sends it nothing: its lease has no VtepMAC',
      hint: 'restart the daemon there',
    });
  });
});
