import assert from 'node:assert/strict';
import { netState } from '../support/net-state.js';
import { countLines } from '../support/overlay.js';
import { eventually, waitFor } from '../support/wait.js';
import { type FaultBed, assertNothingLost } from './bed.js';
import { scenario } from './scenario.js';

/** A key below the leases, and what it says. */
type Entry = readonly [name: string, value: string];

/** What a host does with the leases: its routes, neighbours and forwarding entries, and the peers it sends to. */
async function effectOf(bed: FaultBed, number: number): Promise<unknown> {
  const { routes, neighbours, fdb } = await netState(bed.rig.host(number).netns);
  const { peers } = await bed.daemon(number).status();
  const used = peers.filter(({ skipped }) => skipped === null).map(({ subnet, publicIp }) => `${subnet} ${publicIp}`);
  const isLink = (route: string): boolean => route.startsWith('fe80:') || route.startsWith('multicast');
  return {
    routes: routes.filter((route) => !isLink(route)),
    neighbours,
    fdb: fdb.filter((entry) => entry.includes(' dst ')),
    peers: used,
  };
}

async function put(bed: FaultBed, entries: readonly Entry[]): Promise<void> {
  for (const [name, value] of entries) await bed.etcd.putText(bed.leaseKey(name), value);
}

/** A lease that is put after others has been seen by every daemon: so have the others. */
async function waitUntilAllHaveSeenEverything(bed: FaultBed): Promise<void> {
  for (const number of bed.started) await bed.waitUntilFollowing(number);
}

/** Every key is in the status; log and doctor name at least one of them, so that they stay readable with thousands. */
async function assertReported(bed: FaultBed, number: number, names: readonly string[], mark: number): Promise<void> {
  const daemon = bed.daemon(number);
  const forms = (name: string): string[] => [name, ...name.split('&').map((part) => part.replace('-', '/'))];
  const speaksOf = (text: string, name: string): boolean => forms(name).some((form) => text.includes(form));
  const status = JSON.stringify(await daemon.status());
  for (const name of names) assert.ok(speaksOf(status, name), `the status does not speak of ${name}`);
  const { stdout } = await bed.ctl(number, ['doctor'], { mayFail: true });
  assert.ok(
    names.some((name) => speaksOf(stdout, name)),
    `doctor speaks of none of them:\n${stdout}`,
  );
  const told = daemon.log.slice(mark).match(/^.* (warn |error) .*$/gm) ?? [];
  assert.ok(
    told.some((line) => names.some((name) => speaksOf(line, name))),
    `the log speaks of none of them:\n${told.join('\n')}`,
  );
}

/**
 * Puts keys that must not be admitted: every host does what it did, packets go on, etcd is followed, also
 * after a restart with the keys in place, and nothing is left once they are deleted.
 */
async function resist(bed: FaultBed, entries: readonly Entry[], isReported: boolean): Promise<void> {
  const names = entries.map(([name]) => name);
  const subnets = bed.started.map((number) => bed.subnetOf(number));
  const effects = async (): Promise<unknown[]> => Promise.all(bed.started.map(async (number) => effectOf(bed, number)));
  await bed.waitUntilReady();
  const before = await effects();
  const [mark = 0] = [...bed.marks([1]).values()];
  const pids = bed.started.map((number) => bed.daemon(number).program.pid);

  const traffic = await bed.traffic(async () => {
    await put(bed, entries);
    await waitUntilAllHaveSeenEverything(bed);
    await eventually('effects as before', async () => assert.deepEqual(await effects(), before));
    if (isReported) await assertReported(bed, 1, names, mark);
    for (const number of bed.started) {
      assert.ok(bed.daemon(number).program.isRunning, bed.daemon(number).log.slice(-3000));
      const { isReady, store } = await bed.daemon(number).status();
      assert.ok(isReady && store.isConnected);
    }
    assert.deepEqual(
      bed.started.map((number) => bed.daemon(number).program.pid),
      pids,
    );
  });
  assertNothingLost(traffic);

  await bed.daemon(1).stop();
  await bed.daemon(1).startAndWait();
  await bed.waitUntilReady();
  await bed.waitUntilConnected();
  await bed.waitUntilFollowing(1);
  assert.deepEqual(
    bed.started.map((number) => bed.subnetOf(number)),
    subnets,
  );

  for (const name of names) await bed.etcd.delete(bed.leaseKey(name));
  await waitUntilAllHaveSeenEverything(bed);
  await eventually('effects as at first', async () => assert.deepEqual(await effects(), before));
  await bed.waitUntilConnected();
}

scenario('hostile-values', { short: 'vxlan' }, async ({ bed: make }) => {
  const bed = await make();
  const nested = (depth: number): string => `${'['.repeat(depth)}${']'.repeat(depth)}`;
  const value = (change: object): string => bed.leaseValue('198.51.100.70', change);
  await resist(
    bed,
    [
      ['10.5.70.0-24', nested(5000)],
      ['10.5.71.0-24', `{"PublicIP":"198.51.100.71","BackendData":${nested(5000)}}`],
      ['10.5.72.0-24', value({ BackendType: 'x'.repeat(1_000_000) })],
      ['10.5.73.0-24', value({ BackendType: '\u001b]0;owned\u0007\u001b[2J\r\nFLANNEL_SUBNET=1' })],
    ],
    false,
  );
  const { log } = bed.daemon(1);
  assert.ok(Math.max(...log.split('\n').map((line) => line.length)) < 4096, 'lines of the log are cut');
  assert.ok(!log.includes('\u001b'), 'nothing in the log commands a terminal');
});

scenario('hostile-subnets', { short: 'vxlan' }, async ({ bed: make }) => {
  const bed = await make();
  const own = bed.subnetOf(1).replace(/\.1\/24$/, '');
  const stranger = bed.leaseValue('198.51.100.80');
  await resist(
    bed,
    [
      // An address of etcd, the underlay as a whole and one host of it.
      ['192.0.2.2-31', stranger],
      ['192.0.2.0-24', stranger],
      [`${bed.rig.host(2).publicIp.replace(/\.\d+$/, '.12')}-30`, stranger],
      // Around, inside and equal to the own subnet; a container of this host.
      ['10.5.0.0-16', stranger],
      [`${own}.0-25`, stranger],
      [`${own}.2-31`, stranger],
      [`${own}.0-24&fd00:10:5::-64`, stranger],
      // Outside the network.
      ['10.6.0.0-24', stranger],
      ['0.0.0.0-1', stranger],
      ['127.0.0.0-8', stranger],
      ['224.0.0.0-24', stranger],
    ],
    true,
  );
});

const FIRST_SUBNET = '10.5.1.0-24';
const TAKEN = '{"PublicIP":"198.51.100.1","PublicIPv6":null}';

scenario('hostile-addresses', { short: 'udp' }, async ({ bed: make }) => {
  // Nobody has the first subnet, so that the key of another one can be put there later.
  const bed = await make({
    prepare: async ({ etcd, etcdPrefix }) => etcd.put(`${etcdPrefix}/subnets/${FIRST_SUBNET}`, TAKEN),
  });
  const inOverlay = bed.container(2).address;
  // flannel takes the first key with its public address for its own, in the order of keys.
  const leaseId = await bed.etcd.grantLease(86_400);
  await bed.etcd.put(bed.leaseKey(FIRST_SUBNET), bed.leaseValue(bed.rig.host(1).publicIp), leaseId);
  await bed.waitUntilFollowing(2);
  await resist(
    bed,
    [
      ['10.5.81.0-24', bed.leaseValue('0.0.0.0')],
      ['10.5.82.0-24', bed.leaseValue('224.0.0.1')],
      ['10.5.83.0-24', bed.leaseValue('127.0.0.1')],
      ['10.5.84.0-24', bed.leaseValue('255.255.255.255')],
      ['10.5.85.0-24', bed.leaseValue(inOverlay)],
      ['10.5.86.0-24', bed.leaseValue('0.1.2.3')],
    ],
    true,
  );
});

scenario('hostile-flood', { short: 'vxlan', timeoutMs: 240_000 }, async ({ bed: make, isShort }) => {
  const PER_REQUEST = 10_000;
  const bed = await make({ etcdArgs: [`--max-txn-ops=${PER_REQUEST}`] });
  const keys = Array.from({ length: isShort ? 20_000 : 50_000 }, (_, index) => bed.leaseKey(`junk-${index}`));
  const [mark = 0] = [...bed.marks([1]).values()];
  const traffic = await bed.traffic(async () => {
    const entries = keys.map((key) => [key, 'junk'] as const);
    await bed.etcd.putMany(entries, PER_REQUEST);
    await waitUntilAllHaveSeenEverything(bed);
    await assertBounded(bed, mark);
  });
  assertNothingLost(traffic);
  await bed.daemon(1).stop();
  await bed.daemon(1).startAndWait();
  await bed.waitUntilReady();
  await assertBounded(bed, 0);
  await bed.waitUntilConnected();
  await bed.etcd.delete(bed.leaseKey('junk-'), { isPrefix: true });
  await waitUntilAllHaveSeenEverything(bed);
  await assertBounded(bed, 0);
});

/** A line or so for thousands of keys, and the daemon knows how many there are. */
async function assertBounded(bed: FaultBed, mark: number): Promise<void> {
  const log = bed.daemon(1).log.slice(mark);
  const lines = countLines(log, /./);
  assert.ok(lines < 200, `${lines} lines of log:\n${log.slice(0, 2000)}`);
  assert.ok(log.length < 100_000, `${log.length} bytes of log:\n${log.slice(0, 2000)}`);
  await waitFor(async () => (await bed.daemon(1).status()).isReady, { what: 'host 1 to be ready' });
}
