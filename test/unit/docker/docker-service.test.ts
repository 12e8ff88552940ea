import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DockerService } from '../../../src/docker/docker-service.js';
import { DROP_IN } from '../../../src/docker/drop-in.js';

const UNIT = '/lib/systemd/system/docker.service';
const DROP_INS = path.dirname(DROP_IN);
const COMMAND = '/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS';
const SUBNET_ENV = 'FLANNEL_SUBNET=10.5.3.1/24\nFLANNEL_MTU=1450\n';
const PID = 4711;

describe('DockerService', () => {
  let root: string;
  let docker: DockerService;
  /** What systemctl was told to do. */
  let orders: string[];
  let loadState: string;
  let mainPid: number;
  let isFollowing: boolean;

  beforeEach(() => {
    root = mkdtempSync(path.join(tmpdir(), 'docker-service-'));
    orders = [];
    loadState = 'loaded';
    mainPid = 0;
    isFollowing = false;
    put(UNIT, `[Service]\nEnvironmentFile=-/etc/default/docker\nExecStart=${COMMAND}\n`);
    put('/run/flannel/subnet.env', SUBNET_ENV);
    put('/run/docker_opts.env', 'DOCKER_OPTS=" --bip=10.5.3.1/24 --ip-masq=false --mtu=1450"\n');
    docker = new DockerService((args) => Promise.resolve(systemctl(args)), root);
  });

  afterEach(() => {
    rmSync(root, { recursive: true });
  });

  function systemctl([verb = '', ...args]: readonly string[]): string {
    if (verb === 'show' && args.includes('tsflannel-docker.path')) return isFollowing ? 'enabled\n' : 'disabled\n';
    if (verb === 'show') return `LoadState=${loadState}\nMainPID=${mainPid}\n`;
    orders.push([verb, ...args].join(' '));
    if (args.includes('tsflannel-docker.path')) isFollowing = verb === 'enable';
    return '';
  }

  function put(file: string, text: string): void {
    mkdirSync(path.join(root, path.dirname(file)), { recursive: true });
    writeFileSync(path.join(root, file), text);
  }

  function runWith(environment: Readonly<Record<string, string>>): void {
    mainPid = PID;
    const lines = Object.entries(environment).map(([name, value]) => `${name}=${value}\0`);
    put(`/proc/${PID}/environ`, lines.join(''));
  }

  const dropIn = (): string => readFileSync(path.join(root, DROP_IN), 'utf8');
  const lines = (): string[] => dropIn().split('\n');
  const enable = (form: 'subnet-env' | 'docker-opts' = 'subnet-env', follow = false) =>
    docker.enable({ form, isFollowing: follow });

  describe('enable', () => {
    it("keeps Docker's own command and puts the values behind it", async () => {
      assert.deepEqual(await enable(), { changes: [`wrote ${DROP_IN}`], needed: [] });
      assert.ok(lines().includes('EnvironmentFile=/run/flannel/subnet.env'));
      const own = `ExecStart=${COMMAND} --bip=\${FLANNEL_SUBNET} --mtu=\${FLANNEL_MTU} --ip-masq=false`;
      assert.deepEqual(
        lines().filter((line) => line.startsWith('ExecStart')),
        ['ExecStart=', own],
      );
      assert.deepEqual(orders, ['daemon-reload']);
    });

    it('adds the options of docker_opts.env only where the command does not take them already', async () => {
      await enable('docker-opts');
      assert.ok(lines().includes('EnvironmentFile=/run/docker_opts.env'));
      assert.ok(!dropIn().includes('ExecStart'));
      put(UNIT, '[Service]\nExecStart=/usr/bin/dockerd -H fd://\n');
      await enable('docker-opts');
      assert.ok(lines().includes('ExecStart=/usr/bin/dockerd -H fd:// $DOCKER_OPTS'));
    });

    it('does nothing the second time, and changes the form and the command when asked again', async () => {
      await enable();
      orders = [];
      assert.deepEqual(await enable(), { changes: [], needed: [] });
      assert.deepEqual(orders, []);
      put(`${DROP_INS}/override.conf`, '[Service]\nExecStart=\nExecStart=/opt/dockerd --live-restore\n');
      assert.deepEqual((await docker.state()).problems, [
        'tsflannelctl docker enable --form=subnet-env: docker.service starts another command than when this was done',
      ]);
      assert.deepEqual((await enable()).changes, [`wrote ${DROP_IN}`]);
      assert.match(dropIn(), /^ExecStart=\/opt\/dockerd --live-restore --bip=/m);
      await enable('docker-opts');
      assert.match(dropIn(), /^ExecStart=\/opt\/dockerd --live-restore \$DOCKER_OPTS$/m);
    });

    it('takes the command that systemd would: of one name the first directory, of several drop-ins the last name', async () => {
      put('/etc/systemd/system/docker.service', '[Service]\nExecStart=first\n');
      put(`${DROP_INS}/b.conf`, '[Service]\nExecStart=\nExecStart=third\n');
      put('/usr/lib/systemd/system/docker.service.d/a.conf', '[Service]\nExecStart=\nExecStart=second\n');
      put('/usr/lib/systemd/system/docker.service.d/b.conf', '[Service]\nExecStart=\nExecStart=hidden\n');
      await enable();
      assert.match(dropIn(), /^ExecStart=third --bip=/m);
      rmSync(path.join(root, `${DROP_INS}/b.conf`));
      rmSync(path.join(root, '/usr/lib/systemd/system/docker.service.d/b.conf'));
      await enable();
      assert.match(dropIn(), /^ExecStart=second --bip=/m);
      rmSync(path.join(root, '/usr/lib/systemd/system/docker.service.d/a.conf'));
      await enable();
      assert.match(dropIn(), /^ExecStart=first --bip=/m);
    });

    it('turns following on once, and leaves it on', async () => {
      assert.deepEqual((await enable('subnet-env', true)).changes, [
        `wrote ${DROP_IN}`,
        'enabled tsflannel-docker.path',
      ]);
      assert.deepEqual(orders, ['daemon-reload', 'enable --now --quiet tsflannel-docker.path']);
      assert.deepEqual((await enable('subnet-env', true)).changes, []);
      await enable();
      assert.ok(isFollowing);
    });

    it('says that Docker has to be restarted exactly until it has been', async () => {
      runWith({ PATH: '/bin' });
      const restart =
        /^systemctl restart docker: it runs without the values of .*subnet\.env; that stops its containers/;
      assert.match((await enable()).needed.join('\n'), restart);
      assert.match((await enable()).needed.join('\n'), restart);
      runWith({ FLANNEL_SUBNET: '10.5.3.1/24', FLANNEL_MTU: '1450' });
      assert.deepEqual((await enable()).needed, []);
    });

    it('says that the daemon has to be started where there are no values yet', async () => {
      rmSync(path.join(root, '/run/flannel/subnet.env'));
      assert.match(
        (await enable()).needed.join('\n'),
        /^systemctl enable --now tsflanneld: Docker does not start before/,
      );
    });

    it('says that nobody would masquerade where the daemon does not, unless Docker is told by docker_opts.env', async () => {
      put('/run/flannel/subnet.env', `${SUBNET_ENV}FLANNEL_IPMASQ=false\n`);
      assert.match((await enable()).needed.join('\n'), /^tsflannelctl docker enable --form=docker-opts: .* masquerade/);
      assert.deepEqual((await enable('docker-opts')).needed, []);
    });

    it('keeps the text of a drop-in that was copied by hand', async () => {
      const copy = `# To use it:  ${DROP_IN}\n[Service]\nExecStart=\nExecStart=dockerd --mine\n`;
      put(DROP_IN, copy);
      const { changes } = await enable();
      assert.equal(changes.length, 2);
      assert.equal(readFileSync(path.join(root, `${DROP_IN}.saved`), 'utf8'), copy);
      assert.ok(lines().some((line) => line.startsWith(`ExecStart=${COMMAND} `)));
    });

    it('says what to do where it may not write', async () => {
      put(DROP_INS, 'no directory');
      await assert.rejects(enable(), /tsflannel\.conf cannot be changed: .*/);
      await assert.rejects(enable(), { hint: 'run this as root' });
    });

    const obstacles: [string, () => void, RegExp][] = [
      [
        'a drop-in of its name that somebody else wrote',
        () => put(DROP_IN, '[Service]\nNice=1\n'),
        /cannot change .*tsflannel\.conf: somebody else wrote it; look at it, move it away/,
      ],
      [
        'another drop-in that gives Docker the values',
        () => put(`${DROP_INS}/flannel.conf`, '[Service]\nEnvironmentFile=-/run/docker_opts.env\n'),
        /flannel\.conf hands it \/run\/docker_opts\.env already; keep that file, which works with tsflanneld as well/,
      ],
      [
        'an option of ours on the command line',
        () => put(`${DROP_INS}/mtu.conf`, '[Service]\nExecStart=\nExecStart=dockerd --mtu 9000\n'),
        /its command line has --mtu already \(ExecStart= in .*mtu\.conf/,
      ],
      [
        'an option of ours in a variable of the command line',
        () => put('/etc/default/docker', 'DOCKER_OPTS="--debug --bip=172.20.0.1/16"\n'),
        /its command line has --bip already/,
      ],
      [
        'a bridge of its own',
        () => put('/etc/default/docker', 'DOCKER_OPTS="-b br0"\n'),
        /its command line has --bridge already/,
      ],
      [
        'an option of ours in daemon.json',
        () => put('/etc/docker/daemon.json', '{"live-restore": true, "bip": "172.20.0.1/16"}'),
        /daemon\.json has "bip", and Docker does not start with it in both places; remove "bip" there/,
      ],
      ['no Docker', () => (loadState = 'not-found'), /there is no such unit; install Docker first/],
      ['a masked Docker', () => (loadState = 'masked'), /it is masked; run systemctl unmask docker\.service first/],
    ];
    for (const [what, arrange, message] of obstacles) {
      it(`refuses, and changes nothing, with ${what}`, async () => {
        arrange();
        const before = existsSync(path.join(root, DROP_IN)) ? dropIn() : undefined;
        await assert.rejects(enable('subnet-env', true), (error: Error) => {
          assert.equal((error as Error & { code?: string }).code, 'ERR_DOCKER_UNIT');
          assert.match(String(error), message);
          return true;
        });
        assert.equal(existsSync(path.join(root, DROP_IN)) ? dropIn() : undefined, before);
        assert.deepEqual(orders, []);
      });
    }
  });

  describe('disable', () => {
    it('removes what enable made, once, and says when Docker has to be restarted', async () => {
      await enable('subnet-env', true);
      runWith({ FLANNEL_SUBNET: '10.5.3.1/24', FLANNEL_MTU: '1450' });
      orders = [];
      assert.deepEqual(await docker.disable(), {
        changes: ['disabled tsflannel-docker.path', `removed ${DROP_IN}`],
        needed: ["systemctl restart docker: until then it keeps the overlay's addresses"],
      });
      assert.deepEqual(orders, [
        'disable --now --quiet tsflannel-docker.path',
        'stop tsflannel-docker.service',
        'daemon-reload',
      ]);
      assert.ok(!existsSync(path.join(root, DROP_INS)));
      orders = [];
      const again = await docker.disable();
      assert.deepEqual([again.changes, again.needed.length, orders], [[], 1, []]);
      runWith({ PATH: '/bin' });
      assert.deepEqual((await docker.disable()).needed, []);
    });

    it('asks for no restart where somebody else gives Docker the same values', async () => {
      put(`${DROP_INS}/flannel.conf`, '[Service]\nEnvironmentFile=/run/flannel/subnet.env\n');
      runWith({ FLANNEL_SUBNET: '10.5.3.1/24', FLANNEL_MTU: '1450' });
      assert.deepEqual(await docker.disable(), { changes: [], needed: [] });
    });

    it('leaves the drop-ins of others alone', async () => {
      await enable();
      put(`${DROP_INS}/other.conf`, '[Service]\nNice=1\n');
      await docker.disable();
      assert.deepEqual(readdirSync(path.join(root, DROP_INS)), ['other.conf']);
      put(DROP_IN, '[Service]\nNice=1\n');
      await assert.rejects(docker.disable(), /cannot remove .*tsflannel\.conf: somebody else wrote it/);
      assert.equal(dropIn(), '[Service]\nNice=1\n');
    });

    it('works where Docker has gone before', async () => {
      await enable();
      loadState = 'not-found';
      assert.deepEqual((await docker.disable()).changes, [`removed ${DROP_IN}`]);
    });
  });

  describe('what Docker runs with', () => {
    const cases: [string, Record<string, string>, string[]][] = [
      ['subnet.env as it is now', { FLANNEL_SUBNET: '10.5.3.1/24', FLANNEL_MTU: '1450' }, []],
      [
        'an older subnet.env',
        { FLANNEL_SUBNET: '10.5.9.1/24', FLANNEL_MTU: '1450' },
        ['FLANNEL_SUBNET 10.5.9.1/24 → 10.5.3.1/24'],
      ],
      ['docker_opts.env as it is now', { DOCKER_OPTS: ' --bip=10.5.3.1/24 --ip-masq=false --mtu=1450' }, []],
      [
        'an older docker_opts.env',
        { DOCKER_OPTS: ' --bip=10.5.3.1/24 --ip-masq=true --mtu=1450' },
        ['DOCKER_OPTS --bip=10.5.3.1/24 --ip-masq=true --mtu=1450 → --bip=10.5.3.1/24 --ip-masq=false --mtu=1450'],
      ],
    ];
    for (const [what, environment, expected] of cases) {
      it(`is compared: ${what}`, async () => {
        runWith(environment);
        const changes = await docker.pendingChanges();
        assert.deepEqual(
          changes?.map(({ name, from, to }) => `${name} ${from} → ${to}`),
          expected,
        );
      });
    }

    it('is nothing where it does not run, and an error where none of it is ours', async () => {
      assert.equal(await docker.pendingChanges(), undefined);
      runWith({ DOCKER_OPTS: '--debug' });
      await assert.rejects(
        docker.pendingChanges(),
        /it runs with nothing from tsflanneld; run tsflannelctl docker enable/,
      );
    });

    it('is part of the state', async () => {
      await enable('docker-opts', true);
      runWith({ DOCKER_OPTS: '--bip=10.5.9.1/24' });
      const { problems, ...state } = await docker.state();
      assert.deepEqual(state, {
        dropIn: { path: DROP_IN, author: 'program', form: 'docker-opts' },
        isFollowing: true,
        isRunning: true,
      });
      assert.match(
        problems.join('\n'),
        /^systemctl restart docker: DOCKER_OPTS was '--bip=10\.5\.9\.1\/24' and is now/,
      );
    });
  });

  it('names the unit file by which Docker needs a file', async () => {
    assert.equal(await docker.readerOf('/run/flannel/subnet.env'), undefined);
    put(`${DROP_INS}/optional.conf`, '[Service]\nEnvironmentFile=-/run/flannel/subnet.env\n');
    assert.equal(await docker.readerOf('/run/flannel/subnet.env'), undefined);
    put(`${DROP_INS}/needed.conf`, '[Service]\nEnvironmentFile=/run/flannel/subnet.env\n');
    assert.equal(await docker.readerOf('/run/flannel/subnet.env'), `${DROP_INS}/needed.conf`);
  });
});
