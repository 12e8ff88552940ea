import assert from 'node:assert/strict';
import { DockerHosts, skipWithoutDocker } from '../support/docker-hosts.js';
import type { DockerNetworkHost, NetworkedContainer } from '../support/docker-network-host.js';
import { type Host, Rig } from '../support/rig.js';
import { eventually } from '../support/wait.js';

const SUBNETS = ['--subnet', '10.30.0.0/16', '--ipv6', '--subnet', 'fd00:30::/64'];
const OTHER_SUBNETS = ['--subnet', '10.31.0.0/16', '--ipv6', '--subnet', 'fd00:31::/64'];

const ALWAYS = ['--restart', 'always'];

/** A web server that stops at once. */
const SERVER = ['--detach', '--stop-signal', 'SIGKILL', 'busybox', 'busybox', 'httpd', '-f', '-p', '80'];

/**
 * Published ports of routed networks while an engine, the daemon, etcd or the whole host is away or begins anew. A
 * container of host 2 is in another network, which those of host 1 never reach.
 */
describe('published ports of containers over restarts, with real engines', function () {
  this.timeout(180_000);
  const hosts = new DockerHosts();
  const { host } = hosts;
  let rig: Rig;
  let on: DockerNetworkHost;
  /** The other host as a machine that calls. */
  let far: Host;
  let stranger: NetworkedContainer;

  const serve = async (
    server: DockerNetworkHost,
    network: string,
    ...options: string[]
  ): Promise<NetworkedContainer> => {
    const { stdout } = await server.docker(['run', '--network', network, ...options, ...SERVER]);
    return server.inspect(stdout.trim());
  };

  /** Whether a web server answers there; what it has no page for is an answer, too. */
  const answers = async (from: Host, address: string, port: number): Promise<boolean> => {
    const url = `http://${address.includes(':') ? `[${address}]` : address}:${port}/`;
    const argv = ['curl', '--silent', '--output', '/dev/null', '--max-time', '2', url];
    return (await from.netns.run(argv, { mayFail: true })).code === 0;
  };

  const assertPublished = async (port: number): Promise<void> => {
    const { publicIp, publicIpv6 } = on.host;
    for (const address of [publicIp, publicIpv6]) assert.ok(await answers(far, address, port), `${address} ${port}`);
  };

  const eventuallyPublished = (port: number): Promise<void> =>
    eventually(`port ${port} to answer`, () => assertPublished(port), { timeoutMs: 30_000, intervalMs: 200 });

  /** Ports of the host in the rules, each with the container's; one line for each family. */
  const published = async (): Promise<readonly string[]> => {
    const { stdout } = await on.host.netns.run(['nft', 'list', 'ruleset']);
    return [...stdout.matchAll(/tcp \. (\d+) : (\S+) \. (\d+)/g)]
      .map(([, port, address]) => `${port} ${address}`)
      .sort();
  };

  const linesOf = ({ address, address6 }: NetworkedContainer, port: number): readonly string[] =>
    [address, address6].map((each) => `${port} ${each}`).sort();

  /** Whether a container is answered by a web server at an address. */
  const isAnswered = async ({ id }: NetworkedContainer, address: string): Promise<boolean> => {
    const fetch = ['busybox', 'timeout', '4', 'busybox', 'nc', '-w', '2', address, '80'];
    const { stdout } = await on.docker(['exec', '-i', id, ...fetch], {
      input: 'GET / HTTP/1.0\r\n\r\n',
      mayFail: true,
    });
    return stdout.startsWith('HTTP/');
  };

  /** Whether the rules of host 1 know the rest of the cluster: who is let in, and who is not to be reached. */
  const assertClusterKnown = async (container: NetworkedContainer): Promise<void> => {
    for (const address of [container.address, container.address6]) assert.ok(await answers(far, address, 80), address);
    assert.equal(await isAnswered(container, stranger.address), false, 'a container of another network');
  };

  const killEtcd = async (): Promise<() => Promise<void>> => {
    await rig.etcd.kill();
    return () => rig.etcd.start();
  };

  before(async function () {
    await skipWithoutDocker(this);
    rig = await Rig.create({ hasIpv6: true });
    await rig.putConfig({
      ...{ Network: '10.5.0.0/16', EnableIPv6: true, IPv6Network: 'fd00:5::/48' },
      Backend: { Type: 'vxlan' },
    });
    await hosts.start(rig.hosts);
    on = host(1);
    far = rig.host(2);
    await host(2).createNetwork('other', [...OTHER_SUBNETS, '--opt', 'type=overlay']);
    stranger = await serve(host(2), 'other');
  });

  beforeEach(() => on.createNetwork('net', [...SUBNETS, '--opt', 'type=overlay']));

  afterEach(async () => {
    await on.removeAll();
    await eventually('the ports to be given back', async () => assert.deepEqual(await published(), []));
  });

  after(async () => {
    await hosts.close();
    await rig.close();
  });

  it('come back with containers that restart when Docker does', async () => {
    const fixed = await serve(on, 'net', ...ALWAYS, '--publish', '8080:80');
    const any = await serve(on, 'net', ...ALWAYS, '--publish', '80');
    await serve(on, 'net', '--publish', '8081:80');
    await assertPublished(8080);
    for (const end of [() => on.engine.stop(), () => on.engine.kill()]) {
      await end();
      await on.engine.start();
      await eventuallyPublished(8080);
      const [first, second] = [await on.inspect(fixed.id), await on.inspect(any.id)];
      await eventually('the ports of these two, and of nobody else', async () => {
        const lines = await published();
        const [port] = lines.find((line) => line.endsWith(` ${second.address}`))?.split(' ') ?? [];
        assert.deepEqual(lines, [...linesOf(first, 8080), ...linesOf(second, Number(port))].sort());
        await assertPublished(Number(port));
      });
    }
  });

  it('go on while Docker is away with live-restore, and are given back afterwards', async () => {
    await on.engine.stop();
    await on.engine.start({ options: '--live-restore' });
    const container = await serve(on, 'net', ...ALWAYS, '--publish', '8080:80');
    for (const end of [() => on.engine.stop(), () => on.engine.kill()]) {
      await end();
      await assertPublished(8080);
      await on.engine.start({ options: '--live-restore' });
      await assertPublished(8080);
      assert.deepEqual(await published(), linesOf(container, 8080));
    }
    await on.docker(['rm', '--force', container.id]);
    await eventually('the port to be given back', async () => assert.deepEqual(await published(), []));
    await serve(on, 'net', '--publish', '8080:80');
    await on.engine.stop();
    await on.engine.start();
  });

  it('go on while the daemon is away, which holds them again afterwards', async () => {
    const container = await serve(on, 'net', ...ALWAYS, '--publish', '8080:80');
    for (const end of [() => on.daemon.stop(), () => on.daemon.kill()]) {
      await end();
      await assertPublished(8080);
      await on.daemon.startAndWait();
      await assertPublished(8080);
      assert.deepEqual(await published(), linesOf(container, 8080));
      const { stderr } = await on.tryRun('net', ['--publish', '8080:80']);
      assert.match(stderr, /port is already allocated/);
      const program = ['busybox', 'timeout', '2', 'busybox', 'nc', '-l', '-p', '8080'];
      assert.match((await on.host.netns.run(program, { mayFail: true })).stderr, /Address already in use/);
    }
    await on.docker(['restart', '--time', '0', container.id]);
    await eventuallyPublished(8080);
  });

  it('are given to containers that start without etcd after a restart of the daemon, whose rules know the cluster', async () => {
    await serve(on, 'net', ...ALWAYS, '--publish', '8080:80');
    const restartEtcd = await killEtcd();
    try {
      await on.daemon.stop();
      on.daemon.start();
      const next = await serve(on, 'net', '--publish', '8081:80');
      await assertPublished(8081);
      await assertClusterKnown(next);
      await assertPublished(8080);
    } finally {
      await restartEtcd();
    }
  });

  it('come back without etcd after a restart of the host, with rules that know the cluster', async () => {
    const container = await serve(on, 'net', ...ALWAYS, '--publish', '8080:80');
    // The other host has been told where the block is that the container's address is from.
    await eventually('the other host to reach it', () => assertClusterKnown(container));
    const restartEtcd = await killEtcd();
    try {
      await on.daemon.stop(); // in order, so that what it knows is on disk
      await on.reset();
      on.daemon.start();
      await on.engine.start();
      await eventuallyPublished(8080);
      const again = await on.inspect(container.id);
      // Published under addresses of the host, which are there before the overlay is.
      await eventually('the other host to be let in', () => assertClusterKnown(again));
    } finally {
      await restartEtcd();
    }
  });
});
