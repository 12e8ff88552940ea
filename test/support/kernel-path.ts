import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { onExit } from './cleanup.js';
import { Netns, deleteNamespaces, run } from './netns.js';
import type { Program } from './program.js';
import { makeWireLike } from './rig.js';
import { skipBecause } from './skip.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const NATIVE_TESTS = path.join(ROOT, 'test/native');
const PROGRAMS = path.join(ROOT, 'native/prebuilds/kernel_path.bpf.o');

/** How long {@link buildKernelPath} may take when nothing has been built. */
export const BUILD_TIMEOUT_MS = 600_000;

/** Compiles the programs of the kernel path and what the tests start; skips these if there is no compiler for them. */
export async function buildKernelPath(tests: Mocha.Context): Promise<void> {
  await run([process.execPath, path.join(ROOT, 'native/bpf/compile.mjs')]);
  if (!existsSync(PROGRAMS)) {
    skipBecause(tests, 'no clang on this machine to compile the kernel path (Debian package clang)');
  }
  // Files of tests run side by side: one would execute what another one is just linking.
  const lock = ['flock', path.join(NATIVE_TESTS, 'Makefile')];
  await run([...lock, 'make', '-s', '-C', NATIVE_TESTS, 'kernel-path'], { timeoutMs: BUILD_TIMEOUT_MS });
}

/** Command line of a program below test/native/kernel_path, as {@link buildKernelPath} left it. */
export function kernelPathCommand(name: 'carrier' | 'mutations' | 'programs', args: readonly string[] = []): string[] {
  const program = path.join(NATIVE_TESTS, 'build/release/kernel_path', name);
  return ['env', `TSFLANNEL_KERNEL_PATH=${PROGRAMS}`, program, ...args];
}

/**
 * What receives on a host: XDP, tc, tc while bulk is left to the tunnel, or the native tunnel alone, which then also
 * sends everything.
 */
export type Receiver = 'xdp' | 'tc' | 'auto' | 'tunnel';

/** Packets that a host has carried. */
export interface Carried {
  readonly native: { readonly sent: number; readonly received: number };
  readonly kernel: { readonly sent: number; readonly received: number };
}

/** Place of some counters in native/core/kernel_path/layout.h. */
const SENT = 0;
const RECEIVED = 11;

/** A host with one container. */
export class KernelPathHost {
  #carrier: Program | undefined;

  constructor(
    readonly netns: Netns,
    readonly container: Netns,
    readonly publicIp: string,
    readonly subnet: string,
  ) {}

  /** Address of the container. */
  get address(): string {
    return this.subnet.replace(/0\/24$/, '2');
  }

  get carrier(): Program {
    if (this.#carrier === undefined) throw new Error('the carrier has not been started');
    return this.#carrier;
  }

  /** Starts native tunnel and programs. @param peer - the other host, and whether it decapsulates in its kernel. */
  async startCarrier(receiver: Receiver, peer: KernelPathHost, isKernel: boolean): Promise<void> {
    const route = `${peer.subnet}=${peer.publicIp},${isKernel ? 1472 : 0}`;
    const args = ['flannel0', 'eth0', this.publicIp, this.subnet, receiver, route];
    this.#carrier = this.netns.start(kernelPathCommand('carrier', args));
    await this.#carrier.waitForLine(/^ready$/);
  }

  /** Gives the TUN what the daemon would. */
  async configureTun(): Promise<void> {
    await this.netns.ip([
      `address add ${this.subnet.replace('/24', '/32')} dev flannel0`,
      'link set flannel0 mtu 1472 txqueuelen 1000 up',
      'route add 10.5.0.0/16 dev flannel0',
    ]);
  }

  /** What it has carried since it started. @param command - what the carrier does before it answers. */
  async carried(command = 'count'): Promise<Carried> {
    const from = this.carrier.mark();
    this.carrier.write(`${command}\n`);
    const [line] = await this.carrier.waitForLine(/^\{.*\}$/, undefined, from);
    const { native, kernel } = JSON.parse(line) as { native: Carried['native']; kernel: number[] };
    return { native, kernel: { sent: kernel[SENT] ?? 0, received: kernel[RECEIVED] ?? 0 } };
  }

  async stop(): Promise<void> {
    this.#carrier?.write('', { end: true });
    await this.#carrier?.exited;
  }
}

/** Two hosts on one link, each with a container; `wire`: every frame as it would be on a cable. */
export class KernelPathPair {
  private constructor(
    readonly left: KernelPathHost,
    readonly right: KernelPathHost,
    readonly close: () => void,
  ) {}

  static async create(link: 'veth' | 'wire'): Promise<KernelPathPair> {
    const names = ['h1', 'c1', 'h2', 'c2'].map((name) => `tsf${process.pid}-kp${serial++}-${name}`);
    const remove = (): void => {
      deleteNamespaces(names);
    };
    const withdraw = onExit(remove);
    const [h1, c1, h2, c2] = (await Netns.create(names)) as [Netns, Netns, Netns, Netns];
    await h1.ip([`link add eth0 type veth peer name eth0 netns ${h2.name}`]);
    const hosts = [
      new KernelPathHost(h1, c1, '192.0.2.1', '10.5.1.0/24'),
      new KernelPathHost(h2, c2, '192.0.2.2', '10.5.2.0/24'),
    ] as const;
    for (const { netns, container, publicIp, address } of hosts) {
      await netns.ip([
        `address add ${publicIp}/24 dev eth0`,
        'link set eth0 up',
        `link add inside mtu 1472 type veth peer name eth0 mtu 1472 netns ${container.name}`,
        `address add ${address.replace(/2$/, '1')}/24 dev inside`,
        'link set inside up',
      ]);
      await container.ip([
        `address add ${address}/24 dev eth0`,
        'link set eth0 up',
        `route add default via ${address.replace(/2$/, '1')}`,
      ]);
      if (link === 'wire') await makeWireLike(netns, 'eth0');
    }
    return new KernelPathPair(...hosts, () => {
      remove();
      withdraw();
    });
  }

  /** Starts both hosts. */
  async start(left: Receiver, right: Receiver): Promise<void> {
    await this.left.startCarrier(left, this.right, right !== 'tunnel');
    await this.right.startCarrier(right, this.left, left !== 'tunnel');
    await Promise.all([this.left.configureTun(), this.right.configureTun()]);
  }
}

let serial = 0;
