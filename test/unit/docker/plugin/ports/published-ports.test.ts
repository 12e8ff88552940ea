import assert from 'node:assert/strict';
import type { Endpoint } from '../../../../../src/docker/plugin/network.js';
import type { PortBinding } from '../../../../../src/docker/plugin/ports/port-bindings.js';
import { PortRefusal } from '../../../../../src/docker/plugin/ports/port-holder.js';
import { PublishedPorts } from '../../../../../src/docker/plugin/ports/published-ports.js';
import { isOverlayError } from '../../../../../src/errors.js';
import { ip, mac } from '../../../../support/builders.js';
import { RecordingLogger } from '../../../../support/recorder.js';

const endpoint = (id: string, addresses = ['198.51.100.2', 'fd00:1::2']): Endpoint => ({
  id,
  networkId: 'n1',
  mac: mac(1),
  addresses: addresses.map((each) => ({ address: ip(each), length: 24 })),
  sandbox: `/run/docker/netns/${id}`,
  isStale: false,
});

const binding = (hostPort: number, change: Partial<PortBinding> = {}): PortBinding => ({
  protocol: 'tcp',
  port: 80,
  hostAddress: undefined,
  hostPort,
  hostPortEnd: hostPort,
  ...change,
});

describe('PublishedPorts', () => {
  let ports: PublishedPorts;
  let log: RecordingLogger;
  let endpoints: Endpoint[];
  /** What is held, and what other programs have, as `0.0.0.0:80/tcp`. */
  let held: Set<string>;
  let foreign: Map<string, string>;

  beforeEach(() => {
    log = new RecordingLogger();
    held = new Set();
    foreign = new Map();
    endpoints = [];
    ports = new PublishedPorts({
      log,
      range: () => Promise.resolve({ first: 32768, last: 32770 }),
      hold({ address, port, protocol }) {
        const key = `${address.toString()}:${port}/${protocol}`;
        const errno = foreign.get(key);
        if (errno !== undefined) throw new PortRefusal(errno);
        assert.ok(!held.has(key), `${key} is held once`);
        held.add(key);
        return () => void held.delete(key);
      },
    });
  });

  /** Publishes, saves, and tells which ports of the host came out. */
  const publish = async (id: string, bindings: readonly PortBinding[], addresses?: string[]): Promise<string[]> => {
    const own = endpoint(id, addresses);
    await ports.publish(own, bindings, endpoints, (chosen) => {
      endpoints = [...endpoints.filter((each) => each.id !== id), { ...own, ports: chosen }];
      return Promise.resolve();
    });
    const saved = endpoints.find((each) => each.id === id)?.ports ?? [];
    return saved.map(({ hostAddress, hostPort, address, port, protocol }) =>
      [hostAddress?.toString() ?? 'any', hostPort, address.toString(), port, protocol].join(' '),
    );
  };

  const refuses = (attempt: Promise<unknown>, what: RegExp): Promise<void> =>
    assert.rejects(attempt, (error) => isOverlayError(error) && what.test(`${error.message} ${error.hint ?? ''}`));

  it('publishes a port for each family that the container has', async () => {
    assert.deepEqual(await publish('a', [binding(8080)]), [
      'any 8080 198.51.100.2 80 tcp',
      'any 8080 fd00:1::2 80 tcp',
    ]);
    assert.deepEqual([...held].sort(), ['0.0.0.0:8080/tcp', ':::8080/tcp']);
    assert.deepEqual(await publish('b', [binding(81)], ['198.51.100.3']), ['any 81 198.51.100.3 80 tcp']);
  });

  it('publishes under one address of the host, or all of one family', async () => {
    const bindings = [
      binding(53, { protocol: 'udp', hostAddress: ip('192.0.2.1') }),
      binding(54, { hostAddress: ip('0.0.0.0') }),
      binding(55, { hostAddress: ip('::') }),
    ];
    assert.deepEqual(await publish('a', bindings), [
      '192.0.2.1 53 198.51.100.2 80 udp',
      'any 54 198.51.100.2 80 tcp',
      'any 55 fd00:1::2 80 tcp',
    ]);
  });

  it('refuses a port that another container has, with who has it', async () => {
    await publish('a'.repeat(64), [binding(8080)]);
    await refuses(
      publish('b', [binding(8080)]),
      /0\.0\.0\.0:8080\/tcp: port is already allocated to endpoint aaaaaaaaaaaa /,
    );
    await refuses(publish('b', [binding(8080, { hostAddress: ip('192.0.2.1') })]), /already allocated/);
    await publish('b', [binding(8080, { protocol: 'udp' })]);
  });

  it('lets two containers have one port under different addresses', async () => {
    await publish('a', [binding(8080, { hostAddress: ip('192.0.2.1') })]);
    await publish('b', [binding(8080, { hostAddress: ip('192.0.2.2') })]);
    assert.equal(held.size, 2);
  });

  it('refuses a port that a program of the host has, as Docker does', async () => {
    foreign.set(':::8080/tcp', 'EADDRINUSE');
    await refuses(
      publish('a', [binding(8080)]),
      /cannot publish \[::\]:8080\/tcp: port is already allocated .*ss -lnp/,
    );
    assert.deepEqual([...held], [], 'nothing is held for what was refused');
  });

  it('says that an address is none of this host', async () => {
    foreign.set('192.0.2.7:80/tcp', 'EADDRNOTAVAIL');
    await refuses(publish('a', [binding(80, { hostAddress: ip('192.0.2.7') })]), /this host has no such address/);
  });

  it('refuses an address of a family that the container does not have, and ::1', async () => {
    await refuses(
      publish('a', [binding(80, { hostAddress: ip('::') })], ['198.51.100.2']),
      /no address of that family/,
    );
    await refuses(publish('a', [binding(80, { hostAddress: ip('::1') })]), /under ::1.*127\.0\.0\.1/);
  });

  it('chooses a port that nobody has where any will do, the next one each time', async () => {
    foreign.set('0.0.0.0:32769/tcp', 'EADDRINUSE');
    const any = binding(0, { hostPortEnd: 0 });
    assert.deepEqual(await publish('a', [any], ['198.51.100.2']), ['any 32768 198.51.100.2 80 tcp']);
    endpoints = endpoints.filter(({ id }) => id !== 'a');
    assert.deepEqual(await publish('b', [any], ['198.51.100.3']), ['any 32770 198.51.100.3 80 tcp']);
    assert.deepEqual(await publish('c', [any], ['198.51.100.4']), ['any 32768 198.51.100.4 80 tcp']);
    await refuses(publish('d', [any], ['198.51.100.5']), /all ports are already allocated/);
  });

  it('has the same port in both families', async () => {
    foreign.set(':::32768/tcp', 'EADDRINUSE');
    const chosen = await publish('a', [binding(0, { hostPortEnd: 0 })]);
    assert.deepEqual(chosen, ['any 32769 198.51.100.2 80 tcp', 'any 32769 fd00:1::2 80 tcp']);
    assert.deepEqual([...held].sort(), ['0.0.0.0:32769/tcp', ':::32769/tcp']);
  });

  it('chooses within a range, and not what is asked for beside it', async () => {
    const bindings = [binding(9000, { hostPortEnd: 9001 }), binding(9000, { port: 81 })];
    foreign.set('0.0.0.0:9002/tcp', 'EADDRINUSE');
    await refuses(publish('a', [...bindings, binding(9002)], ['198.51.100.2']), /9002/);
    const ranges = [binding(9000, { hostPortEnd: 9001 }), binding(9000, { port: 81, hostPortEnd: 9001 })];
    assert.deepEqual(await publish('a', ranges, ['198.51.100.2']), [
      'any 9000 198.51.100.2 80 tcp',
      'any 9001 198.51.100.2 81 tcp',
    ]);
  });

  it('gives back what an endpoint had when it publishes anew, and everything at the end', async () => {
    await publish('a', [binding(8080)]);
    await publish('a', [binding(8080), binding(8081)], ['198.51.100.2']);
    assert.deepEqual([...held].sort(), ['0.0.0.0:8080/tcp', '0.0.0.0:8081/tcp']);
    ports.close();
    assert.equal(held.size, 0);
  });

  it('gives back what could not be saved', async () => {
    const save = (): Promise<void> => Promise.reject(new Error('disk full'));
    await assert.rejects(ports.publish(endpoint('a'), [binding(8080)], [], save), /disk full/);
    assert.equal(held.size, 0);
  });

  it('keeps what is being saved while others come and go', async () => {
    await ports.publish(endpoint('a'), [binding(8080)], [], () => {
      ports.keep([]);
      assert.equal(held.size, 2);
      return Promise.resolve();
    });
  });

  it('holds what an earlier process has published, and gives back what is gone', async () => {
    await publish('a', [binding(8080)]);
    const before = endpoints;
    ports.keep([]);
    assert.equal(held.size, 0);
    ports.keep(before);
    assert.deepEqual([...held].sort(), ['0.0.0.0:8080/tcp', ':::8080/tcp']);
    ports.keep(before.map((each) => ({ ...each, sandbox: undefined })));
    assert.equal(held.size, 0, 'in no container');
  });

  it('tells once of a port that a program has taken meanwhile, and takes it when that ends', async () => {
    await publish('a', [binding(8080)]);
    ports.close();
    foreign.set('0.0.0.0:8080/tcp', 'EADDRINUSE');
    ports.keep(endpoints);
    ports.keep(endpoints);
    const lines = log.lines.filter(({ message }) => /published port/.test(message));
    assert.equal(lines.length, 1);
    foreign.clear();
    ports.keep(endpoints);
    assert.ok(held.has('0.0.0.0:8080/tcp'));
  });
});
