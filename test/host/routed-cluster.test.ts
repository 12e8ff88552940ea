import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ctlFile } from '../support/daemon.js';
import { DockerHosts, skipWithoutDocker } from '../support/docker-hosts.js';
import { DockerNetworkHost, type NetworkedContainer } from '../support/docker-network-host.js';
import { Netns, run } from '../support/netns.js';
import { Program } from '../support/program.js';
import { Rig } from '../support/rig.js';
import type { DaemonStatus } from '../../src/observe/status.js';
import { SteadyPing } from '../support/steady-ping.js';
import { eventually, waitFor } from '../support/wait.js';

const ENDPOINT = fileURLToPath(new URL('../support/port-endpoint.mjs', import.meta.url));
/** The commands of the blocks of a page, without their remarks. */
function commandsOf(page: string): readonly string[] {
  const text = readFileSync(fileURLToPath(new URL(`../../docs/${page}`, import.meta.url)), 'utf8');
  const blocks = [...text.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, lines = '']) => lines);
  return blocks.flatMap((lines) => lines.trimEnd().split('\n')).map((line) => line.replace(/ +#.*/, ''));
}

/** As somebody types them on every host; an internal network has no gateway. */
const SUBNETS = ['--subnet', '10.30.0.0/16', '--ipv6', '--subnet', 'fd00:30::/64'];
const OTHER_SUBNETS = ['--subnet', '10.31.0.0/16', '--ipv6', '--subnet', 'fd00:31::/64'];
const FIXED = '10.30.200.9';

const FAMILIES = ['address', 'address6'] as const;

const NETWORK = { Network: '10.5.0.0/16', EnableIPv6: true, IPv6Network: 'fd00:5::/48' };

/** What is refused is dropped; what is allowed takes as long as it takes. */
const NO_ANSWER_MS = 1500;
const ANSWER_MS = 20_000;

/** The network namespace of a container, which has no name. */
class Sandbox extends Netns {
  override get file(): string {
    return this.name;
  }

  override command(argv: readonly string[]): string[] {
    return ['nsenter', `--net=${this.name}`, ...argv];
  }
}

/**
 * Two hosts, each with an engine, a daemon and the rules of both, and a third one that has a daemon alone.
 */
describe('routed networks across hosts with real engines', function () {
  this.timeout(240_000);
  const hosts = new DockerHosts();
  const { host, onEach: onBoth } = hosts;
  let rig: Rig;
  let servers: Program[] = [];

  before(async function () {
    await skipWithoutDocker(this);
    rig = await Rig.create({ hosts: 3, hasIpv6: true });
    await rig.putConfig({ ...NETWORK, Backend: { Type: 'vxlan' } });
    const third = rig.host(3).startDaemon({ hasPlugin: true, args: ['--host-id=h3'] });
    await Promise.all([third, hosts.start(rig.hosts.slice(0, 2))]);
  });

  afterEach(async () => {
    await Promise.all(servers.map((server) => server.kill()));
    servers = [];
    await hosts.removeAll();
    await eventually(
      'nothing to be left',
      async () => {
        for (const on of hosts) {
          assert.deepEqual(await on.links(), [], on.host.name);
          // A network of the same subnet may have other options only where nobody has it any more.
          assert.deepEqual((await on.daemon.status()).containerNetworks?.pools, [], on.host.name);
          assert.doesNotMatch((await on.host.netns.run(['nft', 'list', 'tables'])).stdout, /inet tsflannel-/);
          for (const program of ['iptables-save', 'ip6tables-save']) {
            assert.doesNotMatch((await on.host.netns.run([program])).stdout, /TSFLANNEL-/);
          }
        }
        for (const { netns } of rig.hosts) {
          for (const family of ['-4', '-6']) {
            const routes = await netns.run(['ip', family, 'route', 'show', 'table', 'all', 'proto', '173']);
            assert.doesNotMatch(routes.stdout, /10\.3[01]\.|fd00:3[01]:/, netns.name);
          }
        }
      },
      { timeoutMs: 40_000, intervalMs: 300 },
    );
  });

  after(async () => {
    await hosts.close();
    await rig.close();
  });

  const create = async (name: string, options: readonly string[], subnets = SUBNETS): Promise<void> => {
    await onBoth((on) => on.createNetwork(name, [...subnets, ...options]));
  };

  /** Types a command of `docker` or `tsflannelctl` on a host. */
  const type = async (on: DockerNetworkHost, command: string): Promise<string> => {
    const [program = '', ...words] = command.split(' ');
    if (program === 'docker') return (await on.docker(words)).stdout;
    assert.equal(program, 'tsflannelctl');
    return (await run([process.execPath, ctlFile(), ...words, '--status-socket', on.daemon.statusSocket])).stdout;
  };

  const sandboxOf = ({ host: on, address }: NetworkedContainer): Sandbox => {
    const [, file] = on.addressesInside().find(([each]) => each === address) ?? assert.fail(`nobody has ${address}`);
    return new Sandbox(file);
  };

  /** Has a container answer each caller with the address that it sees. */
  const serve = async (container: NetworkedContainer): Promise<void> => {
    const program = sandboxOf(container).start([process.execPath, ENDPOINT, 'serve', '80']);
    servers.push(program);
    await program.waitForLine(/serving/);
  };

  /** What each address and port answers over TCP; null if nothing does. */
  const ask = async (
    from: Netns,
    targets: readonly (readonly [string, number])[],
    limitMs: number,
  ): Promise<readonly (string | null)[]> => {
    const calls = targets.map(([address, port]) => ({ protocol: 'tcp', address, port, limitMs }));
    const { stdout } = await run(from.command([process.execPath, ENDPOINT, 'ask']), { input: JSON.stringify(calls) });
    return JSON.parse(stdout) as readonly (string | null)[];
  };

  const targetsOf = (container: NetworkedContainer): (readonly [string, number])[] =>
    FAMILIES.map((family) => [container[family], 80]);

  /** Whether a container is seen under its own addresses by one that serves. */
  const assertSeen = async (caller: NetworkedContainer, server: NetworkedContainer): Promise<void> => {
    const answers = await ask(sandboxOf(caller), targetsOf(server), ANSWER_MS);
    assert.deepEqual(answers, [caller.address, caller.address6]);
  };

  const assertNoAnswer = async (from: Netns, server: NetworkedContainer): Promise<void> => {
    assert.deepEqual(await ask(from, targetsOf(server), NO_ANSWER_MS), [null, null]);
  };

  /** A server on host 1 and a caller on host 2; the routes between them are there. */
  const pair = async (name: string): Promise<readonly [server: NetworkedContainer, caller: NetworkedContainer]> => {
    const [server, caller] = [await host(1).run(name), await host(2).run(name)];
    await serve(server);
    return [server, caller];
  };

  /** What `tsflannelctl cleanup` prints on a host, whose engine's files it sees. */
  const cleanUp = async ({ daemon, engine }: DockerNetworkHost, ...more: readonly string[]): Promise<string> => {
    const { stateDirectory, statusSocket, subnetFile } = daemon;
    const files = ['--state-dir', stateDirectory, '--status-socket', statusSocket, '--subnet-file', subnetFile];
    const words = ['cleanup', ...files, `--etcd-endpoints=${rig.etcd.endpoint}`, ...more];
    // The process is in no PID namespace, other than the engine's /proc.
    const own = [
      'unshare',
      '--mount',
      '--propagation',
      'slave',
      'sh',
      '-c',
      'mount -t proc proc /proc && exec "$@"',
      'sh',
    ];
    return (await run(engine.command([...own, process.execPath, ctlFile(), ...words]))).stdout;
  };

  for (const [type, addressing] of [
    ['overlay', 'host'],
    ['bridge', 'host'],
    ['bridge', 'subnet'],
  ] as const) {
    describe(`of type ${type} with addresses of the ${addressing}`, () => {
      const options = ['--opt', `type=${type}`, '--opt', `address=${addressing}`];

      it('lets containers call each other under their own addresses, and all hosts call them', async () => {
        await create('net', options);
        const [server, caller] = await pair('net');
        await assertSeen(caller, server);
        for (const { netns } of rig.hosts) {
          const answers = await ask(netns, targetsOf(server), ANSWER_MS);
          assert.ok(!answers.includes(null), `${netns.name}: ${answers.join()}`);
        }
      });

      it('keeps networks apart, whether this host has a bridge for the other one or not', async () => {
        await create('net', options);
        await host(2).createNetwork('other', [...OTHER_SUBNETS, ...options]);
        const [server] = await pair('net');
        const stranger = await host(2).run('other');
        await assertNoAnswer(sandboxOf(stranger), server);
        await serve(stranger);
        await assertNoAnswer(sandboxOf(server), stranger);
        const docker = await host(2).run('bridge');
        await assertNoAnswer(sandboxOf(docker), server);
      });

      it('keeps containers apart with icc=false, which their hosts reach', async () => {
        await create('net', [...options, '--opt', 'icc=false']);
        const [server, caller] = await pair('net');
        await assertNoAnswer(sandboxOf(caller), server);
        const answers = await ask(host(2).host.netns, targetsOf(server), ANSWER_MS);
        assert.ok(!answers.includes(null), answers.join());
      });

      it('lets containers of an internal network call each other, and nobody else', async () => {
        await create('net', [...options, '--internal']);
        const [server, caller] = await pair('net');
        await assertSeen(caller, server);
        await assertNoAnswer(host(2).host.netns, server);
        assert.equal(await host(2).reaches(caller, host(1).host.publicIp), false);
      });

      it('publishes a port to containers of both hosts', async () => {
        await create('net', options);
        const server = await host(1).run('net', ['--publish', '8080:80']);
        const caller = await host(2).run('net');
        await serve(server);
        const { publicIp, publicIpv6 } = host(1).host;
        const answers = await ask(
          sandboxOf(caller),
          [
            [publicIp, 8080],
            [publicIpv6, 8080],
          ],
          ANSWER_MS,
        );
        const { publicIp: address, publicIpv6: address6 } = host(2).host;
        assert.deepEqual(answers, [address, address6]);
      });

      it('loses no packet while the daemon of either side is started anew', async () => {
        await create('net', options);
        const [server, caller] = await pair('net');
        await assertSeen(caller, server);
        const steady = SteadyPing.start(sandboxOf(caller), server.address);
        for (const { daemon } of hosts) {
          await daemon.stop();
          await daemon.startAndWait();
        }
        const { sent, received } = await steady.stop();
        assert.equal(received, sent);
      });

      it('finds a fixed address at once where its container is started next', async () => {
        await create('net', options);
        const watcher = await host(2).run('net');
        const moving = [await host(1).run('net', ['--ip', FIXED]), 1] as const;
        assert.ok(await host(2).reaches(watcher, FIXED));
        await host(1).docker(['rm', '--force', moving[0].id]);
        const again = await host(2).run('net', ['--ip', FIXED]);
        await serve(again);
        for (const { netns } of rig.hosts) {
          const answers = await ask(netns, [[FIXED, 80]], ANSWER_MS);
          assert.ok(!answers.includes(null), netns.name);
        }
        const back = await host(1).run('net');
        await assertSeen(back, again);
      });
    });
  }

  it('is made on each host, and used, by the two commands of docs/overlay.md', async () => {
    const [create = '', use = ''] = commandsOf('overlay.md');
    const shown = await onBoth(async (on) => {
      await type(on, create);
      return type(on, use);
    });
    for (const stdout of shown) assert.match(stdout, /inet 10\.30\.\d+\.\d+\/32 scope global eth0/);
    const [server, caller] = await pair('shop');
    const answers = await ask(sandboxOf(caller), [[server.address, 80]], ANSWER_MS);
    assert.deepEqual(answers, [caller.address]);
  });

  it('publishes ports by the commands of docs/published-ports.md', async () => {
    const on = host(1);
    await type(on, commandsOf('overlay.md')[0] ?? '');
    const commands = commandsOf('published-ports.md').slice(0, 4);
    assert.equal(commands.filter((each) => each.startsWith('docker run ')).length, 3);
    let status = '';
    for (const command of commands) status = await type(on, command);
    const { daemon } = JSON.parse(status) as { readonly daemon: DaemonStatus };
    const endpoints = (daemon.containerNetworks?.networks ?? []).flatMap((network) => network.endpoints);
    const published = endpoints.flatMap(({ ports }) => ports.map((each) => each.replace('80/tcp -> ', ''))).sort();
    const { publicIp } = on.host;
    const named = ['0.0.0.0:8080', `${publicIp}:8081`];
    const [any = '', ...others] = published.filter((each) => !named.includes(each));
    assert.deepEqual([published.length, others], [3, []], published.join());
    assert.match(any, /^0\.0\.0\.0:\d{5}$/);
    for (const each of published) {
      const url = `http://${each.replace('0.0.0.0', publicIp)}/`;
      await host(2).host.netns.run(['curl', '--silent', '--output', '/dev/null', '--max-time', '5', url]);
    }
  });

  it("keeps containers of Docker's own networks out, on a host that is in no such network", async () => {
    await host(1).createNetwork('net', [...SUBNETS, '--opt', 'type=overlay']);
    const server = await host(1).run('net');
    await serve(server);
    const docker = sandboxOf(await host(2).run('bridge'));
    const isAnswered = async (from: Netns): Promise<boolean> =>
      (await ask(from, [[server.address, 80]], NO_ANSWER_MS)).join() !== '';
    await eventually('the host itself to be answered', async () => assert.ok(await isAnswered(host(2).host.netns)));
    await eventually('its container to be kept out', async () => assert.ok(!(await isAnswered(docker))));
    assert.ok(await isAnswered(host(2).host.netns));
  });

  it('is left by a cleanup while containers run, and comes back after one that was forced', async () => {
    await create('net', ['--opt', 'type=overlay']);
    const [server, caller] = await pair('net');
    await assertSeen(caller, server);
    const on = host(2);
    await on.daemon.stop();
    assert.match(await cleanUp(on), /left networks of containers.* have interfaces in them \(1\)/);
    assert.match((await on.host.netns.run(['nft', 'list', 'tables'])).stdout, /inet tsflannel-/);
    assert.equal((await on.links()).length, 2);
    assert.doesNotMatch(await cleanUp(on, '--force'), /left/);
    assert.deepEqual(await on.links(), []);
    assert.doesNotMatch((await on.host.netns.run(['nft', 'list', 'tables'])).stdout, /inet tsflannel-/);
    await on.daemon.startAndWait();
    await on.docker(['restart', '--time', '0', caller.id]);
    await assertSeen(await on.inspect(caller.id), server);
  });

  it('changes the backend of an overlay that containers use', async () => {
    await create('net', ['--opt', 'type=overlay']);
    const [server, caller] = await pair('net');
    for (const type of ['udp', 'vxlan']) {
      await rig.putConfig({ ...(type === 'udp' ? { Network: NETWORK.Network } : NETWORK), Backend: { Type: type } });
      for (const { daemon } of hosts) {
        await waitFor(async () => (await daemon.status()).backends.join() === type, { what: type, timeoutMs: 20_000 });
      }
      await eventually(`to be seen through ${type}`, async () => {
        assert.deepEqual(await ask(sandboxOf(caller), [[server.address, 80]], ANSWER_MS), [caller.address]);
      });
    }
    await assertSeen(caller, server);
  });
});
