import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type OverlayInput, OverlayState, onLinkQuestions } from '../../../src/backend/overlay-state.js';
import { ADDITIONAL_METRIC } from '../../../src/backend/families.js';
import type { Prefix } from '../../../src/ip/prefix.js';
import type { Lease } from '../../../src/lease/lease.js';
import { type DesiredState, mergeStates } from '../../../src/reconcile/desired.js';
import { defaultBackend, hostFacts, ip, lease, net, network } from '../../support/builders.js';
import { finish } from '../../support/steps.js';

const vxlanPeer = (n: number): Lease =>
  lease(n, { type: 'vxlan', data: { VNI: 1, VtepMAC: `02:00:00:00:00:${n.toString(16).padStart(2, '0')}` } });

function input(changes: Partial<OverlayInput> = {}): OverlayInput {
  return {
    network: network('vxlan'),
    host: hostFacts(),
    own: vxlanPeer(1),
    peers: [],
    backendFor: defaultBackend,
    lingering: [],
    ...changes,
  };
}

interface Computed {
  readonly state: DesiredState;
  readonly skipped: readonly string[];
  readonly backends: readonly string[];
}

/** The whole state in one piece. */
function compute(overlay: OverlayState, given: OverlayInput): Computed {
  const { base, peers, skipped, backends } = finish(overlay.compute(given));
  return {
    state: mergeStates([base, ...peers]),
    skipped: skipped.map((peer) => `${peer.lease.subnet.toString()} ${peer.reason}`).sort(),
    backends: [...backends].sort(),
  };
}

describe('overlay state', () => {
  it('reaches each peer by the backend its own lease names', () => {
    const peers = [lease(2), vxlanPeer(3), lease(4, { type: 'host-gw' })];
    const { state, backends } = compute(new OverlayState(), input({ peers }));
    assert.deepEqual(state.routes.map((route) => [route.destination.toString(), route.device]).sort(), [
      ['10.5.2.0/24', 'flannel0'],
      ['10.5.3.0/24', 'flannel.1'],
      ['10.5.4.0/24', 'eth0'],
    ]);
    assert.deepEqual([...backends].sort(), ['host-gw', 'udp', 'vxlan']);
  });

  it('loosens the reverse path filter of our devices only while backends are mixed', () => {
    const paths = (peers: OverlayInput['peers']): string[] =>
      compute(new OverlayState(), input({ peers })).state.sysctls.map((sysctl) => sysctl.path);
    assert.deepEqual(paths([vxlanPeer(2)]), ['net/ipv6/conf/flannel.1/accept_ra']);
    const mixed = paths([lease(2)]);
    for (const path of ['net/ipv4/conf/flannel0/rp_filter', 'net/ipv6/conf/flannel.1/accept_ra']) {
      assert.ok(mixed.includes(path), path);
    }
  });

  it('keeps it loose while a backend lingers that no peer names any more', () => {
    const { state } = compute(new OverlayState(), input({ lingering: ['udp'], peers: [vxlanPeer(2)] }));
    assert.deepEqual(
      state.sysctls.filter(({ path }) => path.endsWith('rp_filter')),
      [
        { path: 'net/ipv4/conf/flannel.1/rp_filter', value: '2' },
        { path: 'net/ipv4/conf/flannel0/rp_filter', value: '2' },
      ],
    );
  });

  it('keeps the devices of a lingering backend without routing anything to it', () => {
    const { state } = compute(new OverlayState(), input({ lingering: ['udp'], peers: [vxlanPeer(2)] }));
    assert.deepEqual(
      state.tunnels.map((tunnel) => tunnel.peers.length),
      [1],
    );
    assert.ok(state.routes.every((route) => route.device !== 'flannel0'));
  });

  describe('with networks of containers behind peers', () => {
    const MORE = [net('10.99.0.16/28'), net('10.99.0.5/32')];
    const ROUTES = ['10.99.0.16/28', '10.99.0.5/32'];

    const routesTo = (state: DesiredState): readonly string[] =>
      state.routes
        .filter(({ metric }) => metric === ADDITIONAL_METRIC)
        .map(({ destination, device, gateway }) =>
          [destination, device, gateway].filter(Boolean).map(String).join(' '),
        );

    const unlike: readonly (readonly [string, Lease, string])[] = [
      ['udp', lease(2), 'flannel0'],
      ['vxlan', vxlanPeer(2), 'flannel.1 10.5.2.0'],
      ['host-gw', lease(2, { type: 'host-gw' }), 'eth0 192.0.2.2'],
      ['ipip', lease(2, { type: 'ipip' }), 'flannel.ipip 192.0.2.2'],
    ];

    for (const [type, peer, way] of unlike) {
      for (const own of ['vxlan', type]) {
        it(`has ${type} carry them where the network is ${own}`, () => {
          const given = input({ network: network(own), peers: [peer], additional: new Map([[peer, MORE]]) });
          const { base, peers, skippedPrefixes } = finish(new OverlayState().compute(given));
          const state = mergeStates([base, ...peers]);
          assert.deepEqual(
            routesTo(state),
            ROUTES.map((to) => `${to} ${way}`),
          );
          assert.deepEqual(skippedPrefixes, []);
          for (const tunnel of state.tunnels) {
            const held = tunnel.peers.filter(({ publicIp }) => publicIp.equals(peer.attributes.publicIp));
            assert.deepEqual(
              held.map(({ subnet }) => subnet.toString()),
              ['10.5.2.0/24', ...ROUTES],
            );
          }
        });
      }
    }

    it('carries those of both families in a dual-stack network', () => {
      const [own, peer] = [1, 2].map((n) => lease(n, { type: 'host-gw', isDualStack: true })) as [Lease, Lease];
      const both = [net('10.99.0.16/28'), net('fd00:99::40/122')];
      const host = hostFacts({ underlay: { ...hostFacts().underlay, addressV6: ip('2001:db8::1') } });
      const given = input({
        network: network('host-gw', {}, true),
        own,
        host,
        peers: [peer],
        additional: new Map([[peer, both]]),
      });
      const { peers } = finish(new OverlayState().compute(given));
      assert.deepEqual(routesTo(mergeStates(peers)), [
        '10.99.0.16/28 eth0 192.0.2.2',
        'fd00:99::40/122 eth0 2001:db8::2',
      ]);
    });

    for (const [title, peer, type, cause] of [
      ['that no backend carries: alloc', lease(2), 'alloc', 'backend'],
      ['of peers with extension', lease(2, { type: 'extension' }), 'vxlan', 'backend'],
      ['of a family that the overlay lacks', lease(2), 'udp', 'backend'],
      [
        'of peers that are not reached',
        lease(2, { type: 'host-gw', attributes: { publicIp: ip('203.0.113.9') } }),
        'host-gw',
        'off-link',
      ],
    ] as const) {
      it(`says which are not reached: those ${title}`, () => {
        const prefixes = title.includes('family') ? [net('fd00:99::40/122')] : MORE;
        const host = hostFacts({ isOnLink: (address) => !address.equals(ip('203.0.113.9')) });
        const given = input({ network: network(type), host, peers: [peer], additional: new Map([[peer, prefixes]]) });
        const { base, peers, skippedPrefixes } = finish(new OverlayState().compute(given));
        assert.deepEqual(routesTo(mergeStates([base, ...peers])), []);
        assert.deepEqual(
          skippedPrefixes.map((each) => [each.lease, each.prefixes, each.cause]),
          [[peer, prefixes, cause]],
        );
      });
    }

    for (const [type, peer, reason, hint] of [
      ['udp', lease(2), 'backend "udp" carries no networks of containers over IPv6 to it', /choose a backend/],
      ['vxlan', vxlanPeer(2), 'the overlay has no IPv6 between this host and it', /set EnableIPv6 and IPv6Network/],
    ] as const) {
      it(`says of ${type} without IPv6 what is lacking, and carries IPv4`, () => {
        const prefixes = [net('10.99.0.16/28'), net('fd00:99::40/122')];
        const given = input({ network: network(type), peers: [peer], additional: new Map([[peer, prefixes]]) });
        const { base, peers, skippedPrefixes } = finish(new OverlayState().compute(given));
        assert.equal(routesTo(mergeStates([base, ...peers])).length, 1);
        assert.deepEqual(
          skippedPrefixes.map((each) => [each.prefixes.map(String), each.reason]),
          [[['fd00:99::40/122'], reason]],
        );
        assert.match(skippedPrefixes[0]?.hint ?? '', hint);
      });
    }

    it('guards those of this host against others, as many as cost little', () => {
      const ownAdditional = Array.from({ length: 40 }, (_, n) => net(`10.99.${n}.0/${n === 39 ? 26 : 28}`));
      const { base } = finish(
        new OverlayState().compute(input({ network: network('udp'), own: lease(1), ownAdditional })),
      );
      const own = base.tunnels[0]?.ownPrefixes.map(String) ?? [];
      assert.deepEqual(own.slice(0, 3), ['10.5.1.0/24', '192.0.2.1/32', '10.99.39.0/26']);
      assert.equal(own.length, 18);
    });

    it('looks at no peer but those whose prefixes are others', () => {
      const asked: Lease[] = [];
      const backendFor: OverlayInput['backendFor'] = (type) => {
        const backend = defaultBackend(type);
        return (
          backend && {
            ...backend,
            desired: (context) => {
              const state = backend.desired(context);
              return { ...state, peer: (peer) => (asked.push(peer), state.peer(peer)) };
            },
          }
        );
      };
      const peers = Array.from({ length: 20 }, (_, n) => vxlanPeer(n + 2));
      const [first, second, third] = peers as [Lease, Lease, Lease];
      const overlay = new OverlayState();
      const seen = (additional: ReadonlyMap<Lease, readonly Prefix[]>): readonly Lease[] => {
        asked.length = 0;
        const given = input({ peers, backendFor, additional });
        const result = finish(overlay.compute({ ...given, ...FIXED }));
        const fresh = finish(new OverlayState().compute({ ...given, ...FIXED, backendFor: defaultBackend }));
        assert.deepEqual(mergeStates(result.peers), mergeStates(fresh.peers));
        return [...asked];
      };
      const base = input();
      const FIXED = { network: base.network, host: base.host, own: base.own };
      assert.equal(seen(new Map()).length, 20);
      assert.deepEqual(seen(new Map([[third, MORE]])), [third]);
      assert.deepEqual(seen(new Map([[third, MORE]])), []);
      assert.deepEqual(
        seen(
          new Map([
            [first, MORE],
            [third, MORE],
          ]),
        ),
        [first],
      );
      assert.deepEqual(
        seen(
          new Map([
            [first, [...MORE]],
            [second, MORE],
          ]),
        ),
        [first, second, third],
      );
      assert.deepEqual(seen(new Map()), [first, second]);
    });
  });

  it('names the devices that only linger: links and tunnels, and none that a peer still asks for', () => {
    const devices = (changes: Partial<OverlayInput>): readonly string[] =>
      finish(new OverlayState().compute(input(changes))).lingeringDevices;
    assert.deepEqual(devices({ lingering: ['udp'] }), ['flannel0']);
    assert.deepEqual(devices({ network: network('udp'), own: lease(1), lingering: ['vxlan'] }), ['flannel.1']);
    assert.deepEqual(devices({ lingering: ['udp'], peers: [lease(2)] }), []);
    assert.deepEqual(devices({ lingering: ['vxlan'] }), []);
  });

  it('names a device whose link address is taken once, however many peers have it, until none has', () => {
    const overlay = new OverlayState();
    const taken = { VNI: 1, VtepMAC: '02:00:00:00:00:09' }; // of hostFacts()
    const twin = (n: number): Lease => lease(n, { type: 'vxlan', data: taken });
    const fixed = input({ own: { ...vxlanPeer(1), createdAt: '1000' } });
    const found = finish(overlay.compute({ ...fixed, peers: [twin(2), twin(3)] }));
    assert.deepEqual(
      found.contested.map(({ device }) => device),
      ['flannel.1'],
    );
    assert.equal(found.skipped.length, 2);
    const { contested, skipped } = finish(overlay.compute({ ...fixed, peers: [vxlanPeer(2), vxlanPeer(3)] }));
    assert.deepEqual([contested, skipped], [[], []]);
    finish(overlay.compute({ ...fixed, peers: [twin(2)] }));
    const after = { ...fixed, host: hostFacts({ contested: new Set(['flannel.1']) }), peers: [twin(2)] };
    assert.deepEqual(finish(overlay.compute(after)).contested, [], 'the device has another address by now');
  });

  it('asks each backend once, however many peers name it', () => {
    let asked = 0;
    const backendFor: OverlayInput['backendFor'] = (type) => {
      const backend = defaultBackend(type);
      return (
        backend && {
          ...backend,
          desired: (context) => {
            asked++;
            return backend.desired(context);
          },
        }
      );
    };
    finish(new OverlayState().compute(input({ backendFor, peers: [vxlanPeer(2), vxlanPeer(3), lease(4)] })));
    assert.equal(asked, 2);
  });

  it('keeps the identity of what did not change', () => {
    const overlay = new OverlayState();
    const fixed = input();
    const [early, late] = [vxlanPeer(2), vxlanPeer(4)];
    const first = finish(overlay.compute({ ...fixed, peers: [early, vxlanPeer(3), late, vxlanPeer(5)] }));
    const second = finish(overlay.compute({ ...fixed, peers: [early, late, vxlanPeer(6)] }));
    assert.equal(second.peers[0], first.peers[0]);
    assert.equal(second.peers[1], first.peers[2]);
    const other = finish(overlay.compute({ ...fixed, host: hostFacts(), peers: [early, late] }));
    assert.notEqual(other.peers[0], first.peers[0]);
  });

  it('reports peers of backends that do not exist here and reaches the others', () => {
    const peers = [lease(2, { type: 'gre' }), vxlanPeer(3)];
    const { skipped, state } = compute(new OverlayState(), input({ peers }));
    assert.equal(skipped.length, 1);
    assert.match(skipped[0] ?? '', /^10\.5\.2\.0\/24 .*gre/);
    assert.equal(state.routes.length, 1);
  });

  it('carries nothing with alloc', () => {
    const peers = [lease(2), vxlanPeer(3)];
    const { state } = compute(new OverlayState(), input({ network: network('alloc'), peers }));
    assert.deepEqual([state.links, state.routes], [[], []]);
  });

  it('comes to the same after any history as a first look at its end', () => {
    const kinds = ['udp', 'vxlan', 'vxlan twin', 'host-gw', 'ipip', 'gre', 'vxlan without data'] as const;
    const make = (n: number, kind: (typeof kinds)[number]): Lease => {
      if (kind === 'vxlan') return vxlanPeer(n);
      if (kind === 'vxlan twin') return { ...vxlanPeer(77), subnet: lease(n).subnet };
      return lease(n, { type: kind === 'udp' ? '' : (kind.split(' ')[0] ?? '') });
    };
    const step = fc.record({
      changes: fc.dictionary(fc.integer({ min: 2, max: 9 }).map(String), fc.constantFrom(...kinds, 'gone' as const), {
        maxKeys: 4,
      }),
      context: fc.constantFrom('same', 'same', 'same', 'host', 'own', 'alloc', 'vxlan'),
      lingering: fc.subarray(['udp', 'ipip']),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (history) => {
        const overlay = new OverlayState();
        let fixed = input();
        const leases = new Map<string, Lease>();
        for (const { changes, context, lingering } of history) {
          if (context === 'host') fixed = { ...fixed, host: hostFacts({ isOnLink: () => false }) };
          if (context === 'own') fixed = { ...fixed, own: vxlanPeer(1) };
          if (context === 'alloc' || context === 'vxlan') fixed = { ...fixed, network: network(context) };
          for (const [n, kind] of Object.entries(changes)) {
            if (kind === 'gone') leases.delete(n);
            else leases.set(n, make(Number(n), kind));
          }
          const peers = [...leases.values()].sort((a, b) => a.subnet.compare(b.subnet));
          const given = { ...fixed, peers, lingering };
          const found = compute(overlay, given);
          const expected = compute(new OverlayState(), given);
          assert.deepEqual({ ...found, state: sorted(found.state) }, { ...expected, state: sorted(expected.state) });
        }
      }),
      { numRuns: 200 },
    );
  });

  describe('with one VtepMAC in two leases', () => {
    // Each written last in the opposite order: that a host writes its lease anew takes nothing from it.
    const twin = (n: number, createdAt: string): Lease => ({
      ...lease(n, { type: 'vxlan', data: { VNI: 1, VtepMAC: '02:00:00:00:00:77' } }),
      createdAt,
      revision: String(100_000 - Number(createdAt)),
    });
    const routed = (peers: readonly Lease[], overlay = new OverlayState()): string[] =>
      compute(overlay, input({ peers })).state.routes.map(({ destination }) => destination.toString());

    it('reaches the host that had it first, whatever the order, and says why not the other', () => {
      const [younger, older] = [twin(2, '1000'), twin(3, '999')];
      assert.deepEqual(routed([younger, older]), ['10.5.3.0/24']);
      assert.deepEqual(routed([older, younger]), ['10.5.3.0/24']);
      const { peers, skipped } = finish(new OverlayState().compute(input({ peers: [younger, older] })));
      assert.deepEqual(peers[0], {});
      assert.deepEqual(
        skipped.map(({ lease: { subnet }, cause, reason }) => [subnet.toString(), cause, reason]),
        [
          [
            '10.5.2.0/24',
            'vtep-mac',
            'its VtepMAC 02:00:00:00:00:77 (flannel.1) is also that of 10.5.3.0/24 (192.0.2.3), which had it first',
          ],
        ],
      );
    });

    it('reaches both of one host, as while a network is exchanged', () => {
      const { attributes } = twin(2, '1');
      assert.deepEqual(routed([twin(2, '1'), { ...twin(3, '2'), attributes }]), ['10.5.2.0/24', '10.5.3.0/24']);
    });

    it('reaches the one in the configured network, not what a host left in a former one under a former address', () => {
      const former = { ...twin(2, '1'), subnet: net('10.4.2.0/24') };
      const peers = [former, twin(3, '7'), twin(4, '8')];
      assert.deepEqual(routed(peers), ['10.5.3.0/24']);
      assert.deepEqual(
        compute(new OverlayState(), input({ peers })).skipped.map((text) => text.replace(/ its .* also/, '')),
        [
          '10.4.2.0/24 that of 10.5.3.0/24 (192.0.2.3), which is in the configured network',
          '10.5.4.0/24 that of 10.5.3.0/24 (192.0.2.3), which had it first',
        ],
      );
    });

    it('reaches the other once the first is gone, though all else changed at the same time', () => {
      const overlay = new OverlayState();
      assert.deepEqual(routed([twin(2, '1'), twin(3, '2')], overlay), ['10.5.2.0/24']);
      assert.deepEqual(routed([twin(3, '2')], overlay), ['10.5.3.0/24']);
    });

    it('takes the lower subnet where both came in one transaction', () => {
      assert.deepEqual(routed([twin(3, '7'), twin(2, '7')]), ['10.5.2.0/24']);
    });

    it('reaches the other as soon as the first is gone or has another one', () => {
      const overlay = new OverlayState();
      const fixed = input();
      const at = (peers: readonly Lease[]): string[] =>
        compute(overlay, { ...fixed, peers }).state.routes.map(({ destination }) => destination.toString());
      const [first, second] = [twin(2, '1'), twin(4, '2')];
      assert.deepEqual(at([first, vxlanPeer(3), second]), ['10.5.2.0/24', '10.5.3.0/24']);
      assert.deepEqual(at([vxlanPeer(2), vxlanPeer(3), second]), ['10.5.2.0/24', '10.5.3.0/24', '10.5.4.0/24']);
      assert.deepEqual(at([first, vxlanPeer(3), second]), ['10.5.2.0/24', '10.5.3.0/24']);
      assert.deepEqual(at([vxlanPeer(3), second]), ['10.5.3.0/24', '10.5.4.0/24']);
    });
  });

  it('may rest at each of many peers that are new, and at one where one has changed', () => {
    const overlay = new OverlayState();
    const count = (given: OverlayInput): number => [...overlay.compute(given)].length;
    const fixed = input();
    const peers = Array.from({ length: 50 }, (_, n) => vxlanPeer(n + 2));
    assert.equal(count({ ...fixed, peers }), 100, 'made, and entered');
    assert.equal(count({ ...fixed, peers: peers.with(7, vxlanPeer(200)) }), 2);
  });

  it('is not confused by a backend that throws', () => {
    const overlay = new OverlayState();
    const fixed = input();
    const peers = [vxlanPeer(2), lease(3, { type: 'ipip' })];
    compute(overlay, { ...fixed, peers: [lease(2), vxlanPeer(4)] });
    const fail = (): never => {
      throw new Error('a defect');
    };
    const backendFor: OverlayInput['backendFor'] = (type) => {
      const backend = defaultBackend(type);
      return backend?.type === 'ipip' ? { ...backend, desired: () => ({ base: {}, peer: fail }) } : backend;
    };
    assert.throws(() => finish(overlay.compute({ ...fixed, peers, backendFor })), /a defect/);
    assert.deepEqual(compute(overlay, { ...fixed, peers }), compute(new OverlayState(), { ...fixed, peers }));
    assert.deepEqual(compute(overlay, { ...fixed, peers: [] }).backends, ['vxlan']);
  });
});

describe('onLinkQuestions', () => {
  it('looks each backend up once, however many peers name it', () => {
    let lookups = 0;
    const peers = Array.from({ length: 100 }, (_, n) => lease(n, { type: 'host-gw' }));
    const questions = onLinkQuestions(peers, (type) => {
      lookups++;
      return defaultBackend(type);
    });
    assert.deepEqual([questions.length, lookups], [100, 1]);
  });

  it('asks for both addresses of each peer whose backend depends on it', () => {
    const dual = lease(4, { type: 'host-gw' });
    const publicIpv6 = ip('2001:db8::4');
    const peers = [
      lease(2),
      lease(3, { type: 'host-gw' }),
      { ...dual, attributes: { ...dual.attributes, publicIpv6 } },
      lease(5, { type: 'gre' }),
      lease(6, { type: 'Host-GW' }),
    ];
    assert.deepEqual(onLinkQuestions(peers, defaultBackend).map(String), [
      '192.0.2.3',
      '192.0.2.4',
      '2001:db8::4',
      '192.0.2.6',
    ]);
  });
});

/** The parts without their order, which means nothing. */
function sorted(state: DesiredState): unknown {
  return Object.fromEntries(
    Object.entries(state).map(([kind, specs]) => [
      kind,
      (specs as readonly unknown[]).map((spec) => JSON.stringify(spec)).sort(),
    ]),
  );
}
