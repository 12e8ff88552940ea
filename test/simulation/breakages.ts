// Shows that the simulation finds faults: breaks one thing after the other in a copy of the program and counts the
// histories that it takes until an invariant is broken.
//
//   node --import tsx test/simulation/breakages.ts [--histories N] [--seed S] [--only TEXT]
//
// Prints a table; fails if a breakage is not found, or its place in the source is no longer there.
import { spawn } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

/** Something that the program must not do. */
interface Breakage {
  readonly what: string;
  readonly file: string;
  /** Text that stands in the file once. */
  readonly from: string;
  readonly to: string;
}

const BREAKAGES: readonly Breakage[] = [
  {
    what: 'peers that another history lacks are dropped at once',
    file: 'src/lease/peers.ts',
    from: 'const RETENTION_MS = 400_000;',
    to: 'const RETENTION_MS = 0;',
  },
  {
    what: 'every history counts as the one that is known',
    file: 'src/etcd/follow.ts',
    from: '    const hasReached =',
    to: "    if (known.revision !== '') return 'same';\n    const hasReached =",
  },
  {
    what: 'a watch goes on after the last event instead of the last witness',
    file: 'src/etcd/follow.ts',
    from: 'const { revision } = newestMark(this.#world) ?? this.#world;',
    to: 'const { revision } = this.#world;',
  },
  {
    what: 'what was written but not heard of is no witness',
    file: 'src/etcd/store.ts',
    from: 'this.#context.written = {',
    to: 'const unused = {',
  },
  {
    what: 'deletions are not looked for in a history',
    file: 'src/etcd/follow.ts',
    from: 'if (!isListed && !(await this.#isTailKnown(world))) {',
    to: 'if (isListed && !isListed) {',
  },
  {
    what: 'a world that is older than an answer is believed',
    file: 'src/lease/decide.ts',
    from: 'return world.epoch === answered.epoch && isAfter(answered.revision, world.revision);',
    to: 'return world === undefined && answered === undefined;',
  },
  {
    what: 'a host goes on with a subnet that was taken',
    file: 'src/lease/decide.ts',
    from: "if (!isOwnKey(seen, own, holding, isNewEpoch)) return lose(next, holding, 'taken', now);",
    to: '',
  },
  {
    what: 'a host goes on with a subnet that overlaps an older one',
    file: 'src/lease/decide.ts',
    from: "if (older !== undefined) return lose(next, { ...holding, lease: seen }, 'overlapped', now, older.key);",
    to: '',
  },
  {
    what: 'the value is not asserted again in another history',
    file: 'src/lease/decide.ts',
    from: 'return holding.isUnreadable || !areAttributesEqual(holding.lease.attributes, wanted);',
    to: 'return holding.epoch === 1 && !areAttributesEqual(holding.lease.attributes, wanted);',
  },
  {
    what: 'no pause after "somebody changed it"',
    file: 'src/lease/decide.ts',
    from: 'return { ...own, answered, holding: postponeRewrite(holding, attributes, nowMs, random) };',
    to: 'return { ...own, holding };',
  },
  {
    what: 'what failed is not tried again when etcd is back',
    file: 'src/daemon.ts',
    from: 'this.membership.keeper?.retryNow();',
    to: '',
  },
  {
    what: 'subnets of peers that may come back are given away',
    file: 'src/lease/allocator.ts',
    from: '[...others, ...avoid]',
    to: 'others',
  },
  {
    what: 'a lost subnet is not wished for again',
    file: 'src/lease/decide.ts',
    from: 'wishes: remember(lease, own.wishes),',
    to: '',
  },
  {
    what: 'leases may cover etcd',
    file: 'src/daemon/admission-source.ts',
    from: 'const guarded = [...this.store, ...',
    to: 'const guarded = [...',
  },
  {
    what: 'a configured network may cover etcd and the hosts',
    file: 'src/daemon/admission-source.ts',
    from: 'assertNetworkFree(network, [...this.store, ...own]);',
    to: '',
  },
  {
    what: 'leases outside the network are routed',
    file: 'src/lease/admission.ts',
    from: 'if (outside !== undefined) {',
    to: 'if (outside !== undefined && networks.length === 0) {',
  },
  {
    what: 'unused etcd leases are not given up',
    file: 'src/etcd/unused-etcd-leases.ts',
    from: 'this.#waiting.add(etcdLeaseId);',
    to: '',
  },
  {
    what: 'ready whether or not the lease is published',
    file: 'src/daemon/readiness.ts',
    from: 'else if (!parts.isLeasePublished)',
    to: 'else if (!parts.isLeaseHeld)',
  },
  {
    what: 'a change of the own address is not published',
    file: 'src/daemon/pass.ts',
    from: 'this.publishedBackend = network.backendType;\n    keeper?.publish(attributes);',
    to: '',
  },
  {
    what: 'peers that changed and changed back are not reported',
    file: 'src/lease/peers.ts',
    from: 'if (changes === 0 && !this.#isUntold && (',
    to: 'if (changes === 0 && (',
  },
  {
    what: 'two leases of one host cannot share a VtepMAC',
    file: 'src/backend/claims.ts',
    from: 'others.filter((lease) => !isSameHost(lease, holder))',
    to: 'others',
  },
  {
    what: 'a timer is left behind',
    file: 'src/daemon/pass.ts',
    from: 'this.formerNetworks.close();',
    to: '',
  },
];

const { values } = parseArgs({
  options: {
    histories: { type: 'string', default: '5000' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string', default: '' },
  },
});

const root = path.resolve(import.meta.dirname, '../..');
const rows: string[] = [];
let missed = 0;
for (const breakage of BREAKAGES.filter(({ what }) => what.includes(values.only))) {
  const found = await find(breakage);
  if (found === undefined) missed++;
  const row = `| ${breakage.what} | ${found?.histories ?? `not in ${values.histories}`} | ${found?.invariant ?? ''} |`;
  process.stdout.write(`${row}\n`);
  rows.push(row);
}
process.stdout.write(`${rows.length - missed} passed, ${missed} failed\n`);
process.exitCode = missed === 0 ? 0 : 1;

/** @returns after how many histories it was found, and by what. */
async function find({ file, from, to }: Breakage): Promise<{ histories: number; invariant: string } | undefined> {
  const copy = mkdtempSync(path.join(os.tmpdir(), 'tsflannel-breakage-'));
  try {
    for (const name of ['src', 'test', 'package.json', 'tsconfig.json']) {
      cpSync(path.join(root, name), path.join(copy, name), { recursive: true });
    }
    symlinkSync(path.join(root, 'node_modules'), path.join(copy, 'node_modules'));
    const target = path.join(copy, file);
    const parts = readFileSync(target, 'utf8').split(from);
    if (parts.length !== 2) throw new Error(`"${from}" stands ${parts.length - 1} times in ${file}`);
    writeFileSync(target, parts.join(to));
    const args = ['--import', 'tsx', 'test/simulation/main.ts', '--stop-early', '--histories', values.histories];
    const output = await run(copy, [...args, '--seed', values.seed]);
    const failures = [...output.matchAll(/^([a-z][a-z ]*): [^]*?\nseed (\d+): /gm)].map(([, invariant = '', seed]) => ({
      invariant,
      histories: Number(seed) - Number(values.seed) + 1,
    }));
    return failures.sort((a, b) => a.histories - b.histories)[0];
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

function run(cwd: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd, stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.on('error', reject);
    child.on('close', () => resolve(output));
  });
}
