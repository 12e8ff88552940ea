import assert from 'node:assert/strict';
import type { ConfiguredBackend, PeerState } from '../../../src/backend/backend.js';
import { type OverlayResult, OverlayState } from '../../../src/backend/overlay-state.js';
import { extensionBackend } from '../../../src/backend/extension.js';
import { OverlayError } from '../../../src/errors.js';
import type { JsonValue } from '../../../src/json.js';
import {
  backendContext,
  backendOptions,
  defaultBackend,
  hostFacts,
  lease,
  network,
  underlay,
} from '../../support/builders.js';
import { finish } from '../../support/steps.js';

const parse = (options: Readonly<Record<string, JsonValue>>): ConfiguredBackend =>
  extensionBackend.parse(backendOptions({ type: 'extension', ...options }));

const HOST_GW = {
  subnetaddcommand: 'ip route add $SUBNET via $PUBLIC_IP',
  subnetremovecommand: 'ip route del $SUBNET via $PUBLIC_IP',
};

describe('extension backend', () => {
  const peer = (data?: JsonValue, backend = parse(HOST_GW), isOwn = true): PeerState =>
    backend
      .desired(backendContext({ isOwn }))
      .peer(lease(2, { type: 'extension', ...(data !== undefined && { data }) }));

  it('tells commands of a peer its subnet, its address and what it published', () => {
    assert.deepEqual(peer('02:00:00:00:00:02').input, {
      subnet: '10.5.2.0/24',
      values: { SUBNET: '10.5.2.0/24', IPV6SUBNET: '', PUBLIC_IP: '192.0.2.2', PUBLIC_IPV6: '' },
      data: '02:00:00:00:00:02',
    });
    assert.equal(peer().input?.data, '');
    assert.equal(peer(null).input?.data, '');
    assert.equal(peer('two\n\tlines').input?.data, 'two\n\tlines');
  });

  it('tells both families in a dual-stack network, of peers and of this host', () => {
    const context = backendContext({
      network: network('extension', {}, true),
      own: lease(1, { isDualStack: true }),
    });
    const state = parse(HOST_GW).desired(context);
    assert.deepEqual(state.peer(lease(2, { type: 'extension', isDualStack: true })).input?.values, {
      SUBNET: '10.5.2.0/24',
      IPV6SUBNET: 'fd00:10:5:2::/64',
      PUBLIC_IP: '192.0.2.2',
      PUBLIC_IPV6: '2001:db8::2',
    });
    assert.deepEqual(state.ownValues, {
      NETWORK: '10.5.0.0/16',
      SUBNET: '10.5.1.0/24',
      IPV6SUBNET: 'fd00:10:5:1::/64',
      PUBLIC_IP: '192.0.2.1',
      PUBLIC_IPV6: '2001:db8::1',
    });
    const { ownValues } = parse(HOST_GW).desired(backendContext());
    assert.deepEqual([ownValues?.IPV6SUBNET, ownValues?.PUBLIC_IPV6], ['', '']);
  });

  for (const data of [{ VNI: 1 }, 7, ['a'], 'a\u0000b', 'a\u001b[2Jb', 'a\rb']) {
    it(`does not give a peer to the commands that published ${JSON.stringify(data)}`, () => {
      const { input, skipped } = peer(data);
      assert.equal(input, undefined);
      assert.equal(skipped?.cause, 'data');
    });
  }

  it('publishes what PreStartupCommand wrote, and nothing without one', () => {
    const facts = hostFacts();
    const data = (options: Readonly<Record<string, JsonValue>>, output?: string): unknown =>
      parse(options).leaseData(network(), facts, output).backendData;
    assert.equal(data({ prestartupcommand: 'cat /key' }, 'key'), 'key');
    assert.equal(data({ prestartupcommand: 'true' }, ''), '');
    assert.equal(data(HOST_GW, ''), undefined);
  });

  it('leaves the kernel alone, gives containers the MTU of the underlay, and has thirty seconds for each command', () => {
    const backend = parse(HOST_GW);
    assert.deepEqual(backend.desired(backendContext()).base, {});
    assert.equal(backend.mtu(network(), underlay()), 1500);
    assert.equal(backend.commands?.timeoutMs, 30_000);
    assert.equal(parse({ ...HOST_GW, commandtimeout: 5 }).commands?.timeoutMs, 5000);
    assert.equal(parse({}).commands, undefined);
  });

  it('refuses a command that needs a shell, and says for which key what to write', () => {
    assert.throws(
      () => parse({ prestartupcommand: 'wg genkey | tee privatekey | wg pubkey' }),
      (error) => {
        assert.ok(error instanceof OverlayError);
        assert.equal(error.code, 'ERR_BACKEND_OPTION');
        assert.match(
          error.message,
          /^cannot use backend extension: Backend\.PreStartupCommand is not a command: it has "\|"/,
        );
        assert.equal(error.hint, `write "sh -c 'wg genkey | tee privatekey | wg pubkey'"`);
        return true;
      },
    );
  });

  it('refuses a variable that is not known yet when the command runs', () => {
    assert.throws(() => parse({ prestartupcommand: 'echo $SUBNET' }), { code: 'ERR_BACKEND_OPTION' });
    assert.throws(() => parse({ subnetaddcommand: 'echo $NETWORK' }), { code: 'ERR_BACKEND_OPTION' });
  });

  it('does not reach a peer that names it where the commands are not known', () => {
    assert.equal(peer('', parse({}), false).skipped?.cause, 'backend');
    assert.equal(peer('', parse({}), true).skipped, undefined);
    assert.equal(peer('', parse(HOST_GW), false).skipped, undefined, 'the last ones known');
  });

  it('gets the peers whose leases name it and no others, and keeps what it was told of unchanged ones', () => {
    const backend = parse(HOST_GW);
    const overlay = new OverlayState();
    const peers = [lease(2, { type: 'extension' }), lease(3, { type: 'host-gw' }), lease(4, { type: 'extension' })];
    const base = { network: network('extension'), host: hostFacts(), own: lease(1), lingering: [] };
    const compute = (of: typeof peers): OverlayResult['commands'] =>
      finish(
        overlay.compute({
          ...base,
          peers: of,
          backendFor: (type) => (type === 'extension' ? backend : defaultBackend(type)),
        }),
      ).commands;
    const first = compute(peers);
    assert.ok(first);
    assert.deepEqual(
      first.peers.map(({ subnet }) => subnet),
      ['10.5.2.0/24', '10.5.4.0/24'],
    );
    const second = compute(peers.slice(1));
    assert.deepEqual(second?.peers, [first.peers[1]]);
    assert.equal(second.peers[0], first.peers[1]);
  });
});
