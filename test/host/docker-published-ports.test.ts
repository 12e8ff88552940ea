import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { DockerEngine } from '../support/docker.js';
import { type Netns, type Output, run } from '../support/netns.js';
import { Program } from '../support/program.js';
import { type Host, Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { eventually, waitFor } from '../support/wait.js';

const PLUGIN = fileURLToPath(new URL('../support/docker-plugin-host.ts', import.meta.url));
const TSX = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;

/** Answers with the address of whoever asks; `nc` of busybox is not built with `-e` everywhere. */
const SERVER = ['busybox', 'httpd', '-f', '-p', '80'];

/**
 * Published ports of a real engine, with the plugin as its driver: the options of `docker run -p`, what Docker refuses,
 * restarts of the plugin and of the engine. Who is reached by whom is tried out in published-ports.test.ts.
 */
describe('docker run -p in networks of the type bridge', function () {
  this.timeout(240_000);
  let rig: Rig;
  let engine: DockerEngine;
  let plugin: Program;
  let host: Host;
  let far: Host;

  const startPlugin = async (): Promise<void> => {
    const directory = path.join(rig.directory, 'plugin');
    mkdirSync(directory, { recursive: true });
    const argv = [process.execPath, '--import', TSX, PLUGIN, '/run/docker/plugins/tsflannel.sock', directory, 'eth0'];
    plugin = new Program(engine.command(argv), { logFile: path.join(directory, 'log') });
    await plugin.waitForLine(/answering docker/, 60_000);
  };

  const docker = (...words: string[]): Promise<Output> => engine.docker(words);

  const start = async (name: string, ...options: string[]): Promise<Output> =>
    engine.docker(['run', '--detach', '--name', name, '--stop-signal', 'SIGKILL', ...options, 'busybox', ...SERVER], {
      mayFail: true,
    });

  /** Whether a web server answers there; what it has no page for is an answer, too. */
  const answers = async (netns: Netns, address: string, port: number): Promise<boolean> => {
    const where = address.includes(':') ? `[${address}]` : address;
    const argv = ['curl', '--silent', '--output', '/dev/null', '--max-time', '5', `http://${where}:${port}/`];
    return (await netns.run(argv, { mayFail: true })).code === 0;
  };

  /** The maps of published ports, as nft shows them. */
  const published = async (): Promise<readonly string[]> => {
    const { stdout } = await host.netns.run(['nft', 'list', 'ruleset']);
    return [...stdout.matchAll(/(tcp|udp|sctp) \. (\d+) : (\S+) \. (\d+)/g)]
      .map(([, protocol, hostPort, address, port]) => `${protocol} ${hostPort} ${address} ${port}`)
      .sort();
  };

  /** What containers have on the host: ends of their interfaces, routes, and ports in the rules. */
  const expectNothingLeft = async (): Promise<void> => {
    const show = 'ip -o link show | grep -o tsfv.*; ip route show proto 173; ip -6 route show proto 173';
    await eventually('nothing to be left', async () => {
      assert.equal((await host.netns.run(['sh', '-c', show])).stdout, '');
      assert.deepEqual(await published(), []);
    });
  };

  before(async function () {
    const obstacle = await DockerEngine.obstacle();
    if (obstacle !== undefined) skipBecause(this, obstacle);
    if ((await run(['sh', '-c', 'command -v curl && command -v nft'], { mayFail: true })).code !== 0) {
      skipBecause(this, 'no programs curl and nft');
    }
    rig = await Rig.create({ hasIpv6: true });
    [host, far] = [rig.host(1), rig.host(2)];
    engine = new DockerEngine(host);
    await engine.start();
    await startPlugin();
    await engine.importBusybox();
    process.stdout.write(`      Docker ${await engine.version()}\n`);
    const subnets = ['--subnet', '198.51.100.0/25', '--ipv6', '--subnet', 'fd00:1::/64'];
    await docker('network', 'create', '--driver', 'tsflannel', '--opt', 'type=bridge', ...subnets, 'web');
  });

  afterEach(async () => {
    const { stdout } = await docker('ps', '--all', '--quiet');
    const ids = stdout.split('\n').filter((id) => id !== '');
    if (ids.length > 0) await docker('rm', '--force', ...ids);
  });

  after(async () => {
    await plugin.kill();
    await engine.close();
    await rig.close();
  });

  it('publishes over both families, for everybody and for the host', async () => {
    assert.equal((await start('web1', '--network', 'web', '--publish', '8080:80')).code, 0);
    assert.ok(await answers(far.netns, host.publicIp, 8080), 'IPv4');
    assert.ok(await answers(far.netns, host.publicIpv6, 8080), 'IPv6');
    assert.ok(await answers(host.netns, '127.0.0.1', 8080), 'loopback');
    assert.ok(await answers(host.netns, host.publicIp, 8080), 'the host itself');
    assert.equal(await answers(far.netns, host.publicIp, 80), false, 'what is not published');
  });

  it('reaches a published port of its own host from the container itself', async () => {
    await start('web1', '--network', 'web', '--publish', '8080:80');
    const fetch = ['busybox', 'timeout', '10', 'busybox', 'nc', '-w', '5', host.publicIp, '8080'];
    const { stdout } = await engine.docker(['exec', '-i', 'web1', ...fetch], { input: 'GET / HTTP/1.0\r\n\r\n' });
    assert.match(stdout, /^HTTP\/1/);
  });

  it('takes the next free port where any will do, and those of a range', async () => {
    const options = ['--publish', '80', '--publish', '0:53/udp', '--publish', '9000-9001:81'];
    assert.equal((await start('web1', '--network', 'web', ...options)).code, 0);
    const ports = (await published()).filter((each) => each.includes('198.51.100.'));
    assert.equal(ports.length, 3, ports.join('; '));
    assert.match(ports.join(';'), /tcp (32[789]|[345])\d+ \S+ 80/);
    assert.match(ports.join(';'), /udp (32[789]|[345])\d+ \S+ 53/);
    assert.match(ports.join(';'), /tcp 9000 \S+ 81/);
  });

  it('publishes SCTP, and with -P what an image exposes', async () => {
    assert.equal((await start('web1', '--network', 'web', '--publish', '9899:99/sctp')).code, 0);
    assert.match((await published()).join('; '), /^sctp 9899 198\.51\.100\.\d+ 99; sctp 9899 fd00:1::\w+ 99$/);
    assert.equal((await start('web2', '--network', 'web', '--expose', '80', '--expose', '53/udp', '-P')).code, 0);
    const all = await published();
    const web = all.find((each) => /^tcp .* 198\.51\.100\.\d+ 80$/.test(each)) ?? assert.fail(all.join('; '));
    assert.ok(await answers(far.netns, host.publicIp, Number(web.split(' ')[1])));
    assert.equal(all.filter((each) => / 53$/.test(each)).length, 2, 'one for each family');
  });

  it('publishes under one address of the host alone, of either family', async () => {
    const options = ['--publish', `${host.publicIp}:8080:80`, '--publish', `[${host.publicIpv6}]:8081:80`];
    assert.equal((await start('web1', '--network', 'web', ...options, '--publish', '127.0.0.1:8082:80')).code, 0);
    for (const [netns, address, port, isAnswered] of [
      [far.netns, host.publicIp, 8080, true],
      [host.netns, host.publicIp, 8080, true],
      [host.netns, '127.0.0.1', 8080, false],
      [far.netns, host.publicIpv6, 8080, false],
      [far.netns, host.publicIpv6, 8081, true],
      [far.netns, host.publicIp, 8081, false],
      [far.netns, host.publicIp, 8082, false],
      [host.netns, '127.0.0.1', 8082, true],
    ] as const) {
      assert.equal(await answers(netns, address, port), isAnswered, `${netns.name} to ${address} ${port}`);
    }
    // Under the other address the same port is free.
    assert.equal((await start('web2', '--network', 'web', '--publish', '127.0.0.1:8080:80')).code, 0);
    const third = await start('web3', '--network', 'web', '--publish', '8080:80');
    assert.match(third.stderr, /port is already allocated/);
  });

  it('refuses in the words of Docker what a program has, and an address of nobody, and leaves nothing behind', async () => {
    const program = host.netns.start(['busybox', 'nc', '-l', '-p', '8080']);
    try {
      await waitFor(async () => (await host.netns.run(['ss', '-lnt'])).stdout.includes(':8080 '), {
        what: 'a listener',
      });
      for (const [publish, why] of [
        ['8080:80', /:8080\/tcp: port is already allocated/],
        [`${host.publicIp}:8080:80`, /:8080\/tcp: port is already allocated/],
        ['192.0.2.99:8081:80', /192\.0\.2\.99:8081\/tcp: this host has no such address/],
      ] as const) {
        const { code, stderr } = await start('web1', '--network', 'web', '--publish', publish);
        assert.equal(code, 125, stderr);
        assert.match(stderr, /driver failed programming external connectivity on endpoint web1/);
        assert.match(stderr, why);
        await expectNothingLeft();
        await docker('rm', 'web1');
      }
    } finally {
      await program.kill();
    }
    assert.equal((await start('web2', '--network', 'web', '--publish', '8080:80')).code, 0);
    assert.ok(await answers(far.netns, host.publicIp, 8080));
  });

  it('refuses what a container or a program has, and gives back what a container had', async () => {
    await start('web1', '--network', 'web', '--publish', '8080:80');
    const second = await start('web2', '--network', 'web', '--publish', '8080:80');
    assert.match(second.stderr, /cannot publish 0\.0\.0\.0:8080\/tcp: port is already allocated to endpoint/);
    const own = await start('web3', '--publish', '8080:80');
    assert.match(own.stderr, /already (allocated|in use)/, "also Docker's own networks");
    await docker('rm', '--force', 'web1', 'web2', 'web3');
    assert.deepEqual(await published(), []);
    assert.equal((await start('web4', '--publish', '8080:80')).code, 0);
    const fourth = await start('web5', '--network', 'web', '--publish', '8080:80');
    assert.match(fourth.stderr, /port is already allocated/, 'by Docker');
  });

  it('goes on while the plugin is away, and has the same ports after it and after Docker started again', async () => {
    await start('web1', '--network', 'web', '--publish', '80', '--restart', 'always');
    const before = await published();
    assert.ok(before.length > 0);
    await plugin.stop();
    assert.deepEqual(await published(), before);
    await host.netns.run(['nft', 'flush', 'ruleset']);
    await startPlugin();
    assert.deepEqual(await published(), before, 'before Docker has asked');
    await host.netns.run(['iptables', '-F', 'FORWARD']);
    await waitFor(async () => (await host.netns.run(['iptables', '-S', 'FORWARD'])).stdout.includes('TSFLANNEL'), {
      what: 'the jump from FORWARD',
    });
  });
});
