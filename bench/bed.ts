import { statSync } from 'node:fs';
import type { Daemon } from '../test/support/daemon.js';
import { Rig, type Container, type LinkModel } from '../test/support/rig.js';
import { ping } from '../test/support/traffic.js';
import { waitFor } from '../test/support/wait.js';
import type { Case } from './cases.js';

/** What a case is measured on: two hosts with its daemons running and a container behind each. */
export interface Bed {
  readonly near: Container;
  readonly far: Container;
  readonly daemons: readonly Daemon[];
  /** From the start of the first daemon's process to its subnet.env. */
  readonly startMs: number;
  /** Resident memory of the first daemon before any traffic. */
  readonly idleBytes: number;
  close(): Promise<void>;
}

// Leases of hosts that are not there, so that a daemon has three peers: 192.0.2.201 and .202.
const GHOSTS = [201, 202] as const;

/** Makes a fresh rig for a case; resolves when packets pass between the containers. */
export async function makeBed(entry: Case, link: LinkModel): Promise<Bed> {
  const rig = await Rig.create({ topology: 'pair', link });
  try {
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: entry.backend });
    for (const ghost of GHOSTS) {
      const data =
        entry.backend.Type === 'vxlan'
          ? { BackendData: { VNI: 1, VtepMAC: `02:00:00:00:00:${ghost.toString(16)}` } }
          : {};
      const lease = { PublicIP: `192.0.2.${ghost}`, PublicIPv6: null, BackendType: entry.backend.Type, ...data };
      await rig.etcd.put(`${rig.etcdPrefix}/subnets/10.5.${ghost}.0-24`, JSON.stringify(lease));
    }
    const [first, second] = rig.hosts.map((host) =>
      host.makeDaemon({ args: entry.args, ...(entry.stock === undefined ? {} : { stock: entry.stock }) }),
    );
    if (first === undefined || second === undefined) throw new Error('a bed needs two hosts');
    const startedAtMs = Date.now();
    await first.startAndWait();
    const startMs = statSync(first.subnetFile).mtimeMs - startedAtMs;
    await second.startAndWait();
    const near = await rig.host(1).addContainer();
    const far = await rig.host(2).addContainer();
    await waitFor(async () => (await ping(near.netns, far.address, { count: 1, waitSeconds: 1 })).received === 1, {
      what: `${entry.name}: an answer from the container behind the other host`,
      timeoutMs: 15_000,
    });
    if (entry.usesKernelPath === true) await expectKernelPath(first);
    const idleBytes = first.residentBytes();
    return { near, far, daemons: [first, second], startMs, idleBytes, close: async () => rig.close() };
  } catch (error) {
    await rig.close();
    throw error;
  }
}

/** @throws Error if the kernel path is refused: the case would measure the native tunnel once more. */
async function expectKernelPath(daemon: Daemon): Promise<void> {
  const kernelPath = async () => (await daemon.status()).tunnels[0]?.kernelPath;
  await waitFor(
    async () => {
      const path = await kernelPath();
      return path?.isActive === true || path?.refused !== null;
    },
    { what: 'the kernel path, or why there is none' },
  );
  const path = await kernelPath();
  if (path?.isActive !== true) throw new Error(`no kernel path: ${JSON.stringify(path)}`);
}
