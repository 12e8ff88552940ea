import assert from 'node:assert/strict';
import { IpAddress } from '../../../../src/ip/address.js';
import { waitFor } from '../../../support/wait.js';
import { PluginBed } from './plugin-bed.js';

const NETWORK = 'a'.repeat(64);
const ENDPOINT = 'e'.repeat(64);
const SECOND = 'f'.repeat(64);
const ROUTE_LOCALNET = 'net/ipv4/conf/tsfb-aaaaaaaaaa/route_localnet';

const ids = { NetworkID: NETWORK, EndpointID: ENDPOINT };

/** As Docker sends what `docker run -p PORT:80` asks for. */
const portMap = (...ports: readonly number[]): object => ({
  'com.docker.network.portmap': ports.map((HostPort) => {
    return { Proto: 6, IP: '', Port: 80, HostIP: '', HostPort, HostPortEnd: HostPort };
  }),
});

describe('ports of containers in a routed network', () => {
  let bed: PluginBed;

  const call = async (method: string, body: object): Promise<Readonly<Record<string, unknown>>> => {
    const answer = bed.call(`NetworkDriver.${method}`, body);
    await bed.advanceUntil(answer);
    return answer;
  };

  const refusal = async (method: string, body: object): Promise<string> => {
    const answer = bed.failure(`NetworkDriver.${method}`, body);
    await bed.advanceUntil(answer);
    return answer;
  };

  const create = (options: object = { type: 'bridge' }, more: object = {}): Promise<unknown> =>
    call('CreateNetwork', {
      NetworkID: NETWORK,
      Options: { 'com.docker.network.generic': options, ...more },
      IPv4Data: [{ AddressSpace: 'tsflannel', Pool: '10.10.10.0/24', Gateway: '10.10.10.1/24' }],
      IPv6Data: [],
    });

  const join = async (EndpointID = ENDPOINT, address = '10.10.10.2/24'): Promise<void> => {
    const Interface = { Address: address, AddressIPv6: '', MacAddress: '' };
    await call('CreateEndpoint', { ...ids, EndpointID, Interface, Options: {} });
    await call('Join', { ...ids, EndpointID, SandboxKey: '/proc/self/ns/net', Options: {} });
  };

  const publish = (...ports: readonly number[]): Promise<unknown> =>
    call('ProgramExternalConnectivity', { ...ids, Options: portMap(...ports) });

  const rules = (): readonly string[] =>
    (bed.firewall.input?.ports ?? []).map(({ hostPort, address, port }) => `${hostPort} ${address.toString()} ${port}`);

  beforeEach(async () => {
    bed = new PluginBed();
    await bed.plugin.start();
    await bed.call('IpamDriver.RequestPool', { Pool: '10.10.10.0/24' });
  });

  afterEach(() => bed.close());

  it('lead there before Docker is answered, and are held', async () => {
    await create();
    await join();
    await publish(8080);
    assert.deepEqual(rules(), ['8080 10.10.10.2 80']);
    assert.deepEqual([...bed.portsHeld], ['0.0.0.0 8080/tcp']);
    assert.equal(bed.plugin.status().ports, 1);
  });

  for (const end of ['RevokeExternalConnectivity', 'Leave', 'DeleteEndpoint']) {
    it(`are given back with ${end}`, async () => {
      await create();
      await join();
      await publish(8080);
      await call(end, ids);
      await bed.clock.advance(100);
      assert.deepEqual([rules(), [...bed.portsHeld]], [[], []]);
    });
  }

  it('are the same when Docker asks twice, and others when it asks for others', async () => {
    await create();
    await join();
    await publish(8080);
    await publish(8080);
    assert.deepEqual([...bed.portsHeld], ['0.0.0.0 8080/tcp']);
    await publish(8081);
    assert.deepEqual([...bed.portsHeld], ['0.0.0.0 8081/tcp']);
  });

  it('are refused to a second container', async () => {
    await create();
    await join();
    await publish(8080);
    await join(SECOND, '10.10.10.3/24');
    const answer = await refusal('ProgramExternalConnectivity', { ...ids, EndpointID: SECOND, Options: portMap(8080) });
    assert.match(answer, /port is already allocated to endpoint eeeeeeeeeeee/);
    assert.deepEqual(rules(), ['8080 10.10.10.2 80']);
  });

  it('are refused, and given back, where the rules cannot be written', async () => {
    await create();
    await join();
    bed.firewall.isRefusing = true;
    assert.match(
      await refusal('ProgramExternalConnectivity', { ...ids, Options: portMap(8080) }),
      /cannot write rules/,
    );
    await bed.clock.advance(100);
    assert.deepEqual([...bed.portsHeld], []);
  });

  it('are there again after a restart before Docker asks, and given back at its end', async () => {
    await create();
    await join();
    await publish(8080);
    bed.firewall.input = undefined;
    await bed.restart();
    assert.deepEqual(rules(), ['8080 10.10.10.2 80']);
    assert.deepEqual([...bed.portsHeld], ['0.0.0.0 8080/tcp']);
    await bed.plugin.stop();
    assert.deepEqual([...bed.portsHeld], []);
  });

  it('are none in an internal network, nor under an address that everybody reaches anyway', async () => {
    await create({ type: 'bridge' }, { 'com.docker.network.internal': true });
    await join();
    await publish(8080);
    assert.deepEqual([...bed.portsHeld], []);
    await call('DeleteNetwork', { NetworkID: NETWORK });
    bed.addresses.agreed.clear();
    await create({ type: 'macvlan', parent: 'eth0' });
    await join();
    await publish(8080);
    assert.deepEqual([...bed.portsHeld], []);
  });

  it('are reached from 127.0.0.1 as long as the rules are there that keep containers from it', async () => {
    bed.kernel.sysctls.set(ROUTE_LOCALNET, '0');
    bed.firewall.isRefusing = true;
    await create();
    assert.equal(bed.kernel.sysctls.get(ROUTE_LOCALNET), '0');
    bed.firewall.isRefusing = false;
    await join();
    await bed.clock.advance(100);
    assert.equal(bed.kernel.sysctls.get(ROUTE_LOCALNET), '1');
  });

  it('leaves the rules of an earlier process until something is known of the cluster', async () => {
    bed.cluster = undefined;
    await create();
    assert.equal(bed.firewall.isProvisional, true);
    bed.cluster = { overlay: [], routed: [], hosts: [] };
    bed.plugin.noteCluster();
    await bed.clock.advance(0);
    assert.equal(bed.firewall.isProvisional, false, 'at once, the first time');
  });

  it('are opened once something is known of the cluster, so that the rules name its other hosts', async () => {
    await create();
    await join();
    bed.cluster = undefined;
    await bed.restart();
    const opened = bed.call('NetworkDriver.ProgramExternalConnectivity', { ...ids, Options: portMap(8080) });
    await waitFor(() => bed.portsHeld.size > 0, { what: 'the port to be held' });
    for (let ms = 0; ms < 1900; ms += 100) await bed.clock.advance(100);
    assert.deepEqual(rules(), []);
    const other = IpAddress.parse('192.0.2.12');
    bed.cluster = { overlay: [], routed: [], hosts: [other] };
    bed.plugin.noteCluster();
    await opened;
    assert.deepEqual([rules(), bed.firewall.input?.hosts], [['8080 10.10.10.2 80'], [other]]);
  });

  it('are opened with what is known where nothing becomes known in two seconds', async () => {
    await create();
    await join();
    bed.cluster = undefined;
    await bed.restart();
    await publish(8080);
    assert.deepEqual(rules(), ['8080 10.10.10.2 80']);
  });
});
