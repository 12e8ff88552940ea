import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { run } from '../../support/netns.js';

const PROGRAM = path.resolve(import.meta.dirname, '../../../src/bin/mk-docker-opts.ts');

describe('mk-docker-opts on a host with routes', () => {
  let directory: string;

  before(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'mk-docker-opts-'));
    await writeFile(path.join(directory, 'subnet.env'), 'FLANNEL_SUBNET=10.9.7.129/25\n');
  });

  after(() => rm(directory, { recursive: true }));

  /** Runs the program in a namespace that ends with it and has one route to 10.9.7.128/25. */
  async function runWithRoute(route: string): Promise<{ readonly code: number; readonly stderr: string }> {
    const commands = [
      'ip link add eth0 type veth peer name peer0',
      'ip link set eth0 up',
      'ip address add 192.0.2.2/24 dev eth0',
      `ip route add 10.9.7.128/25 ${route}`,
      `exec "$0" --import tsx "$1" -c -f ${directory}/subnet.env -d ${directory}/docker.env`,
    ];
    const argv = ['unshare', '--net', 'sh', '-ec', commands.join('\n'), process.execPath, PROGRAM];
    return run(argv, { mayFail: true, env: { NODE_NO_WARNINGS: '1' } });
  }

  it('complains of a gateway after it has written the file, as flannel does', async () => {
    const { code, stderr } = await runWithRoute('via 192.0.2.1');
    assert.equal(code, 1);
    assert.match(stderr, /10\.9\.7\.129\/25 is routed through a gateway.*; remove that route/);
    assert.equal(await readFile(path.join(directory, 'docker.env'), 'utf8'), 'DOCKER_OPTS=" --bip=10.9.7.129/25"\n');
  });

  it('takes the usual file for an empty one as long as it is missing, as flannel does', async () => {
    const hide = 'mount -t tmpfs none /run && exec "$@"';
    const argv = [process.execPath, '--import', 'tsx', PROGRAM, '-c', '-d', `${directory}/docker.env`];
    const { code } = await run(['unshare', '--mount', '--net', 'sh', '-ec', hide, 'sh', ...argv], { mayFail: true });
    assert.equal(code, 0);
    assert.equal(await readFile(path.join(directory, 'docker.env'), 'utf8'), 'DOCKER_OPTS=""\n');
  });

  it('is content with the route of the bridge', async () => {
    assert.deepEqual(await runWithRoute('dev eth0'), { code: 0, stderr: '', stdout: '' });
  });
});
