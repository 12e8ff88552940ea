import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Finding } from '../../src/ctl/doctor/facts.js';
import { ctlFile } from '../support/daemon.js';
import { ETCD_ROOT_PASSWORD } from '../support/etcd.js';
import type { Output } from '../support/netns.js';
import { Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';

const NETWORK = '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}';

/** Nobody in particular. */
const NOBODY = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];

describe('tsflannelctl without a word about etcd, on a host whose etcd is elsewhere', () => {
  let rig: Rig;
  /** Seen as /run/flannel and /etc/default, by commands of this host alone. */
  let run: string;
  let etc: string;

  before(async function () {
    if (process.getuid?.() !== 0) skipBecause(this, 'network namespaces need root');
    rig = await Rig.create({ hosts: 1, etcdPrefix: '/overlay/a' });
    chmodSync(rig.directory, 0o755);
    run = path.join(rig.directory, rig.host(1).name);
    etc = path.join(rig.directory, 'etc');
    for (const directory of [run, etc]) mkdirSync(directory);
    await rig.putConfig(JSON.parse(NETWORK) as object);
    await startDaemon();
  });

  after(() => rig.close());

  beforeEach(() => rmSync(path.join(etc, 'tsflanneld'), { force: true }));

  const startDaemon = (...args: string[]): Promise<unknown> =>
    rig.host(1).startDaemon({ args: [`--status-socket=${run}/tsflanneld.sock`, ...args] });

  /** What the daemon is given by its unit's environment file. */
  function writeUnitFile(mode: number, ...lines: string[]): void {
    const file = path.join(etc, 'tsflanneld');
    const text = [
      `FLANNELD_ETCD_ENDPOINTS=${rig.etcd.endpoint}`,
      `TSFLANNELD_OPTS="--etcd-prefix /overlay/a --state-dir='${run}/state' --subnet-file=${run}/subnet.env"`,
      ...lines,
    ];
    writeFileSync(file, `${text.join('\n')}\n`);
    chmodSync(file, mode);
  }

  async function ctl(words: string, { as = [] as readonly string[], input = '' } = {}): Promise<Output> {
    const view = `mount -t tmpfs -o mode=755 none /run && mkdir /run/flannel && mount --bind ${run} /run/flannel`;
    const line = ['sh', '-c', `${view} && mount --bind ${etc} /etc/default && exec "$@"`, 'sh'];
    return rig.host(1).netns.run([...line, ...as, process.execPath, ctlFile(), ...words.split(' ')], {
      mayFail: true,
      input,
    });
  }

  /** Exit code and the one line that was said. */
  async function refusalOf(words: string): Promise<string> {
    const { code, stdout, stderr } = await ctl(words, { as: NOBODY, input: NETWORK });
    return `${code} ${stdout}${stderr}`;
  }

  it('asks the etcd of the running daemon', async () => {
    const got = await ctl('config get');
    assert.deepEqual([got.code, JSON.parse(got.stdout), got.stderr], [0, JSON.parse(NETWORK), '']);
    assert.match((await ctl('leases list')).stdout, new RegExp(`^10\\.5\\.\\d+\\.0/24 +${rig.host(1).publicIp} `, 'm'));
    const planned = await ctl('config set - --dry-run', { input: '{"Network": "10.5.0.0/16"}' });
    assert.deepEqual([planned.code, /backend: vxlan → udp/.test(planned.stdout)], [3, true], planned.stderr);
    const { stderr } = await ctl('config get --verbose');
    assert.equal(
      stderr,
      `tsflannelctl: settings of the running daemon: --etcd-endpoints=${rig.etcd.endpoint} --etcd-prefix=/overlay/a --status-socket=/run/flannel/tsflanneld.sock\n`,
    );
  });

  it('has the doctor ask that etcd as well', async () => {
    const { stdout, stderr } = await ctl('doctor --max-peers=0 --json');
    const { findings } = JSON.parse(stdout) as { findings: readonly Finding[] };
    const about = findings.filter(({ check }) => ['etcd', 'config', 'daemon', 'own-lease'].includes(check));
    assert.deepEqual([about, stderr], [[], '']);
  });

  it('tells who is not root so, and neither that no daemon runs nor that etcd is away', async () => {
    const daemon = '/run/flannel/tsflanneld.sock';
    const root = 'run this as root, with sudo for example';
    assert.equal(
      await refusalOf('status'),
      `1 tsflannelctl: cannot ask the daemon at ${daemon}: only root may; ${root}\n`,
    );
    assert.equal(await refusalOf('doctor'), `1 tsflannelctl: cannot examine this host: only root may; ${root}\n`);
    for (const words of ['cleanup', 'cleanup --force']) {
      assert.equal(await refusalOf(words), `1 tsflannelctl: cannot clean up this host: only root may; ${root}\n`);
    }
    const unknown = 'cannot find out how to reach etcd: only root may';
    const hint = `${root}, or give --etcd-endpoints`;
    const noFile = `1 tsflannelctl: ${unknown} ask the running daemon, and there is no /etc/default/tsflanneld; ${hint}\n`;
    for (const words of ['config get', 'config set - --yes', 'config history', 'leases list', 'leases show alpha']) {
      assert.equal(await refusalOf(words), noFile, words);
    }
    writeUnitFile(0o600);
    assert.equal(await refusalOf('config get'), `1 tsflannelctl: ${unknown} read /etc/default/tsflanneld; ${hint}\n`);
  });

  it('lets who is not root use what the environment file of the unit tells', async () => {
    writeUnitFile(0o644);
    const { code, stdout, stderr } = await ctl('config get', { as: NOBODY });
    assert.deepEqual([code, JSON.parse(stdout), stderr], [0, JSON.parse(NETWORK), '']);
    await rig.etcd.stop();
    try {
      assert.match(
        await refusalOf('config get'),
        /^4 .*cannot reach etcd.*\(settings of \/etc\/default\/tsflanneld, as only root may ask the running daemon\)\n$/,
      );
    } finally {
      await rig.etcd.start();
    }
  });

  it('tells that the file was changed after the daemon had read it, and goes on with the daemon', async () => {
    writeUnitFile(0o644, 'FLANNELD_ETCD_ENDPOINTS=http://192.0.2.99:2379');
    const { code, stderr } = await ctl('config get');
    assert.equal(code, 0);
    assert.match(
      stderr,
      /^tsflannelctl: the running daemon has another --etcd-endpoints than \/etc\/default\/tsflanneld /,
    );
  });

  it('logs in as the daemon does, with the password in its file', async () => {
    const password = path.join(rig.directory, 'password');
    writeFileSync(password, `${ETCD_ROOT_PASSWORD}\n`, { mode: 0o600 });
    await rig.host(1).daemon?.stop();
    await rig.etcd.enableAuthentication();
    await startDaemon('--etcd-username=root', `--etcd-password-file=${password}`);
    const { code, stderr } = await ctl('config get');
    assert.deepEqual([code, stderr], [0, '']);

    writeUnitFile(0o644, 'FLANNELD_ETCD_USERNAME=root', `FLANNELD_ETCD_PASSWORD_FILE=${password}`);
    assert.match(
      await refusalOf('config get'),
      /^1 .*cannot use the password file .*: EACCES.*; run this as root, with sudo for example \(settings of \/etc/,
    );
  });

  it('says how to give a password that only the daemon knows', async () => {
    await rig.host(1).daemon?.stop();
    await startDaemon('--etcd-username=root', `--etcd-password=${ETCD_ROOT_PASSWORD}`);
    const { code, stderr } = await ctl('config get');
    assert.equal(code, 1);
    assert.match(
      stderr,
      /cannot log in to etcd as "root": the running daemon does not tell its password; give --etcd-pass/,
    );
    writeUnitFile(0o600, 'FLANNELD_ETCD_USERNAME=root', `FLANNELD_ETCD_PASSWORD=${ETCD_ROOT_PASSWORD}`);
    assert.deepEqual([(await ctl('config get')).code, (await ctl('config get')).stderr], [0, '']);
  });

  it('goes by the environment file of the unit once the daemon has ended, and cleans up after it', async () => {
    assert.equal((await ctl('cleanup')).code, 5);
    await rig.host(1).daemon?.stop();
    writeUnitFile(0o600, 'FLANNELD_ETCD_USERNAME=root', `FLANNELD_ETCD_PASSWORD=${ETCD_ROOT_PASSWORD}`);
    const status = await ctl('status');
    assert.equal(status.code, 4);
    assert.match(status.stdout, new RegExp(`^lease +held by ${rig.host(1).publicIp}, vxlan, ends in `, 'm'));

    const { code, stdout, stderr } = await ctl('cleanup --remove-files');
    assert.deepEqual([code, stderr], [0, '']);
    assert.match(stdout, /^removed link flannel\.1$/m);
    assert.match(stdout, new RegExp(`^removed file ${run}/state$`, 'm'));
    assert.doesNotMatch(stdout, /^left /m);
  });
});
