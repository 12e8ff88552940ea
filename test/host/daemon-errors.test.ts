import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { daemonFile } from '../support/daemon.js';
import { NETWORK, countLines } from '../support/overlay.js';
import { type Output, run } from '../support/netns.js';
import type { Program } from '../support/program.js';
import { type Host, Rig } from '../support/rig.js';

/** What the daemon needs to be told in every case. */
const commandOf = (host: Host, args: readonly string[] = []): string[] => [
  process.execPath,
  daemonFile(),
  `--etcd-endpoints=${host.rig.etcd.endpoint}`,
  `--subnet-file=${path.join(host.rig.directory, 'subnet.env')}`,
  `--state-dir=${path.join(host.rig.directory, 'state')}`,
  `--status-socket=${path.join(host.rig.directory, 'status.sock')}`,
  ...args,
];

/** A mistake on the host or in the flags, and what the daemon says about it. */
interface Mistake {
  readonly title: string;
  readonly config?: object;
  readonly args?: readonly string[];
  /** Words before the daemon's command line. */
  readonly prefix?: readonly string[];
  readonly arrange?: (host: Host) => Promise<unknown>;
  /** The one line about it: code, cause and remedy. */
  readonly says: readonly RegExp[];
  /** Makes it right; then the daemon goes on by itself. `never` where only other flags would; without it, it ends with 1. */
  readonly fix?: 'never' | ((host: Host, daemon: Program) => Promise<unknown>);
}

let occupant: Program | undefined;

async function occupyPort(host: Host): Promise<void> {
  const program = `require('node:dgram').createSocket('udp4').bind(8285, () => console.log('bound'))`;
  occupant = host.netns.start([process.execPath, '-e', program]);
  await occupant.waitForLine(/bound/);
}

async function requirePassword(host: Host): Promise<void> {
  const { etcd } = host.rig;
  await etcd.ctl(['user', 'add', 'root:right']);
  await etcd.ctl(['user', 'grant-role', 'root', 'root']);
  await etcd.ctl(['auth', 'enable']);
}

const MISTAKES: readonly Mistake[] = [
  {
    title: 'not being root',
    prefix: ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'],
    says: [/code=ERR_NOT_PRIVILEGED/, /CAP_NET_ADMIN is missing/, /hint="run as root/],
  },
  {
    title: 'a host without /dev/net/tun',
    prefix: ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs none /dev/net && exec "$@"', 'sh'],
    says: [/code=ERR_NO_TUN_DEVICE/, /\/dev\/net\/tun: ENOENT/, /hint=.*modprobe tun/],
    fix: (_host, { pid }) => run(['nsenter', `--target=${pid}`, '--mount', 'umount', '/dev/net']),
  },
  {
    title: 'a UDP port that another program has',
    arrange: occupyPort,
    says: [/code=ERR_PORT_IN_USE/, /8285.*EADDRINUSE/, /hint=.*Backend\.Port/],
    fix: () => occupant?.kill() ?? Promise.resolve(),
  },
  {
    title: 'a device of another kind with the name of ours',
    config: { ...NETWORK, Backend: { Type: 'vxlan' } },
    arrange: (host) => host.netns.ip(['link add flannel.1 type bridge']),
    says: [/code=ERR_DEVICE_TAKEN/, /flannel\.1: a device of kind bridge/, /hint=.*ip link del flannel\.1/],
    fix: (host) => host.netns.ip(['link del flannel.1']),
  },
  {
    title: 'a route of somebody else to the network',
    arrange: (host) =>
      host.netns.ip(['link add other type bridge', 'link set other up', 'route add 10.5.0.0/16 dev other']),
    says: [/code=ERR_ROUTE_CONFLICT/, /10\.5\.0\.0\/16.*dev other/, /hint=.*ip route del/],
    fix: (host) => host.netns.ip(['route del 10.5.0.0/16 dev other']),
  },
  {
    title: 'a host without a default route',
    arrange: (host) => host.netns.ip(['route del default']),
    says: [/code=ERR_UNDERLAY/, /default route/, /hint=.*--iface.*eth0/],
  },
  {
    title: 'an interface that is not there',
    args: ['--iface=eth7'],
    says: [/code=ERR_UNDERLAY/, /eth7/, /hint=.*eth0/],
  },
  {
    title: 'an etcd that cannot be reached',
    args: ['--etcd-endpoints=http://192.0.2.2:4001'],
    says: [/code=ERR_ETCD_UNAVAILABLE/, /192\.0\.2\.2:4001.*ECONNREFUSED/, /hint=.*--etcd-endpoints/],
    fix: 'never',
  },
  {
    title: 'a certificate file that cannot be read',
    args: ['--etcd-endpoints=https://192.0.2.2:2379', '--etcd-cafile=/no/such/ca.pem'],
    says: [/code=ERR_TLS_FILE/, /\/no\/such\/ca\.pem.*ENOENT/, /hint=.*--etcd-cafile/],
  },
  {
    title: 'a wrong password',
    args: ['--etcd-username=root', '--etcd-password=wrong'],
    arrange: requirePassword,
    says: [/code=ERR_ETCD_AUTH/, /invalid user ID or password/, /hint=.*--etcd-username and the password/],
  },
  {
    title: 'a missing password',
    arrange: requirePassword,
    says: [/code=ERR_ETCD_AUTH/, /hint=.*--etcd-username/],
  },
  {
    title: 'a subnet file that cannot be read',
    args: ['--subnet-file=/dev/null/subnet.env'],
    says: [/code=ERR_SUBNET_FILE/, /\/dev\/null.*ENOTDIR/, /hint=.*--subnet-file/],
  },
  {
    title: 'a subnet file that cannot be written',
    prefix: ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs -o ro none /mnt && exec "$@"', 'sh'],
    args: ['--subnet-file=/mnt/subnet.env'],
    says: [/code=ERR_SUBNET_FILE/, /\/mnt.*EROFS/, /hint=.*--subnet-file/],
    fix: (_host, { pid }) => run(['nsenter', `--target=${pid}`, '--mount', 'mount', '-o', 'remount,rw', '/mnt']),
  },
];

describe('what the daemon says about', () => {
  let rig: Rig;
  let host: Host;

  beforeEach(async () => {
    rig = await Rig.create({ hosts: 1 });
    host = rig.host(1);
  });
  afterEach(async () => {
    await occupant?.kill();
    occupant = undefined;
    await rig.close();
  });

  for (const { title, config, args, prefix = [], arrange, says, fix } of MISTAKES) {
    it(title, async () => {
      await rig.putConfig(config ?? NETWORK);
      await arrange?.(host);
      const program = host.netns.start([...prefix, ...commandOf(host, args)]);
      try {
        const [first, ...rest] = says;
        const [line] = await program.waitForLine(new RegExp(`.* (error|warn ) .*${first?.source ?? ''}.*`));
        for (const pattern of rest) assert.match(line, pattern);
        if (fix === undefined) {
          assert.deepEqual(await program.exited, { code: 1, signal: null });
        } else {
          // Long enough for a second attempt, which must not be told again.
          await new Promise((resolve) => setTimeout(resolve, 2500));
          assert.ok(program.isRunning, program.output);
        }
        assert.equal(countLines(program.output, first ?? /never/), 1, program.output);
        if (fix === undefined) return;
        if (fix !== 'never') {
          await fix(host, program);
          await program.waitForLine(/ ready /, 40_000);
        }
        assert.deepEqual(await program.stop(), { code: 0, signal: null });
      } finally {
        await program.kill();
      }
    });
  }

  it('secrets: nothing, at any level', async () => {
    await rig.putConfig(NETWORK);
    await requirePassword(host);
    const program = host.netns.start(
      commandOf(host, ['--etcd-username=root', '--etcd-password=sesame-4711', '-v', '10']),
      { env: { FLANNELD_ETCD_PASSWORD: 'sesame-4712' } },
    );
    await program.waitForLine(/code=ERR_ETCD_AUTH/);
    await program.exited;
    assert.doesNotMatch(program.output, /sesame/);
  });

  it('a device of another program: nothing, the next name is free', async () => {
    await rig.putConfig(NETWORK);
    await host.netns.ip(['tuntap add flannel0 mode tun', 'link set flannel0 up']);
    const daemon = await host.startDaemon();
    await daemon.waitForLog(/ ready /);
    const names = (await host.netns.ipJson(['link', 'show', 'type', 'tun'])).map(({ ifname }) => ifname);
    assert.deepEqual(names, ['flannel0', 'flannel1']);
    assert.equal(countLines(daemon.log, / (warn|error) /), 0, daemon.log);
  });
});

describe('command line of the daemon', () => {
  const daemon = (...args: readonly string[]): Promise<Output> =>
    run([process.execPath, daemonFile(), ...args], { mayFail: true });

  const usageErrors: readonly { args: readonly string[]; says: RegExp; env?: Record<string, string> }[] = [
    { args: ['--no-such-flag'], says: /--no-such-flag.*no such flag.*--help/ },
    { args: ['--etcd-prefx=/a'], says: /--etcd-prefix/ },
    { args: ['word'], says: /"word"/ },
    { args: ['--ip-masq', 'true'], says: /--ip-masq=true/ },
    { args: ['--public-ip=192.0.2'], says: /192\.0\.2/ },
    { args: ['--datapath=magic'], says: /native.*portable/ },
    { args: ['--subnet-lease-renew-margin=0'], says: /subnet-lease-renew-margin/ },
    { args: ['--kube-subnet-mgr'], says: /etcd/ },
    { args: [], env: { FLANNELD_DATAPATH: 'magic' }, says: /FLANNELD_DATAPATH/ },
  ];
  for (const { args, says, env = {} } of usageErrors) {
    it(`ends with 2 and one sentence for ${[...Object.keys(env), ...args].join(' ')}`, async () => {
      const { code, stderr, stdout } = await run([process.execPath, daemonFile(), ...args], { env, mayFail: true });
      assert.equal(code, 2, stderr);
      assert.equal(stdout, '');
      assert.match(stderr, /^tsflanneld: .*\n$/);
      assert.match(stderr, says);
    });
  }

  it('tells journald that it is an error', async () => {
    const script = 'export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2); exec "$0" "$@"';
    const command = ['sh', '-c', script, process.execPath, daemonFile(), '--no-such-flag'];
    const { code, stderr } = await run(command, { mayFail: true });
    assert.equal(code, 2, stderr);
    assert.match(stderr, /^<3>tsflanneld: .*\n$/);
  });

  it('shows the version of the package', async () => {
    const { version } = JSON.parse(
      readFileSync(path.join(path.dirname(daemonFile()), '../../package.json'), 'utf8'),
    ) as {
      version: string;
    };
    for (const flag of ['--version', '-version']) {
      const { code, stderr } = await daemon(flag);
      assert.deepEqual([code, stderr], [0, `v${version}\n`]);
    }
  });

  it('lists every flag with its default, in lines that fit', async () => {
    const { code, stderr } = await daemon('--help');
    assert.equal(code, 0);
    for (const word of [
      '--etcd-endpoints',
      '--etcd-prefix',
      '--iface-can-reach',
      '--subnet-file',
      '--datapath',
      '--ip-masq',
    ]) {
      assert.match(stderr, new RegExp(`^ +${word}\\b`, 'm'));
    }
    assert.match(stderr, /FLANNELD_ETCD_PREFIX/);
    assert.match(stderr, /\[\/coreos\.com\/network\]/);
    assert.ok(
      stderr.split('\n').every((line) => line.length <= 80),
      'lines of at most 80 columns',
    );
  });
});
