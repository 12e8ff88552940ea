import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { MacAddress } from '../../src/ip/mac.js';
import { post } from '../unit/docker/plugin/plugin-bed.js';
import { mac } from './builders.js';
import { onExit } from './cleanup.js';
import { Netns, deleteNamespaces, directoryPrefix, namePrefix, sweepLeftovers } from './netns.js';
import type { Program } from './program.js';
import { waitFor } from './wait.js';

const PLUGIN = fileURLToPath(new URL('docker-plugin-host.ts', import.meta.url));
const UNIT = fileURLToPath(new URL('../../systemd/tsflanneld.service', import.meta.url));
const TSX = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;

/** A machine beside the host, and where the host is. */
export const LAN = { machine: '192.0.2.1', machine6: '2001:db8::1', host: '192.0.2.11' } as const;

const SUBNETS = { IPv4Data: '192.0.2.0/24', IPv6Data: '2001:db8::/64' } as const;

let serial = 0;
let stations = 0;

/** A container as Docker has it: a namespace with an interface from the plugin. */
export interface PluginContainer {
  readonly netns: Netns;
  readonly mac: MacAddress;
  readonly address: string;
  readonly address6: string;
  /** Ends it. */
  remove(): Promise<void>;
}

/**
 * A host with the plugin, a machine and a switch between them, without a Docker: its calls come from here, and what it
 * does to interfaces is done here.
 *
 * ```
 *   host ns: plugin, eth0 192.0.2.11 ── port `host` ─┐
 *     └ macvlan in the container's ns                ├ sw ns: bridge
 *   machine ns: eth0 192.0.2.1 ── port `machine` ────┘
 * ```
 *
 * The plugin has the capabilities of the unit.
 */
export class PluginLan {
  readonly #namespaces: string[];
  readonly #directory = mkdtempSync(directoryPrefix());
  readonly #withdraw: () => void;
  #plugin: Program | undefined;

  private constructor(private readonly name: string) {
    this.#namespaces = ['host', 'machine', 'sw'].map((each) => `${name}-${each}`);
    this.#withdraw = onExit(() => this.#remove());
  }

  /** Makes namespaces and links and starts the plugin. */
  static async create(): Promise<PluginLan> {
    sweepLeftovers();
    const lan = new PluginLan(namePrefix(serial++) + 'lan');
    try {
      await lan.#lay();
      await lan.#startPlugin();
      return lan;
    } catch (error) {
      await lan.close();
      throw error;
    }
  }

  get host(): Netns {
    return new Netns(`${this.name}-host`);
  }

  get machine(): Netns {
    return new Netns(`${this.name}-machine`);
  }

  /** Process id of the plugin. */
  get pid(): number {
    return this.#plugin?.pid ?? 0;
  }

  /** Whether the switch sends frames of the host back to it, as VEPA has it (IEEE 802.1Qbg). */
  async setReflecting(isOn: boolean): Promise<void> {
    await new Netns(`${this.name}-sw`).run(['bridge', 'link', 'set', 'dev', 'host', 'hairpin', isOn ? 'on' : 'off']);
  }

  /** The answer of the plugin to a call. */
  async call(method: string, body: object): Promise<Readonly<Record<string, unknown>>> {
    const { body: answer } = await post(this.#file('sock'), `NetworkDriver.${method}`, body);
    if ('Err' in answer) throw new Error(`${method}: ${JSON.stringify(answer['Err'])}`);
    return answer;
  }

  /** `docker network create`. @returns its id. */
  async createNetwork(options: Readonly<Record<string, string>> = {}, isInternal = false): Promise<string> {
    const NetworkID = idOf(++serial);
    const data = Object.entries(SUBNETS).map(([field, Pool]) => ({ [field]: [{ AddressSpace: 'null', Pool }] }));
    const generic = { 'com.docker.network.generic': options, 'com.docker.network.internal': isInternal };
    await this.call('CreateNetwork', Object.assign({ NetworkID, Options: generic }, ...data) as object);
    return NetworkID;
  }

  /** `docker network rm`. */
  async removeNetwork(NetworkID: string): Promise<void> {
    await this.call('DeleteNetwork', { NetworkID });
  }

  /**
   * `docker run`: 192.0.2.`n` and 2001:db8::`n`.
   *
   * @param nodad - whether the container uses its IPv6 address without asking for others that have it, as Docker does.
   */
  async runContainer(NetworkID: string, n: number, { nodad = true } = {}): Promise<PluginContainer> {
    const EndpointID = idOf(++serial);
    const own = mac(0x4200 + ++stations);
    const [address, address6] = [`192.0.2.${n}`, `2001:db8::${n}`];
    const [netns] = (await Netns.create([`${this.name}-c${serial}`])) as [Netns];
    this.#namespaces.push(netns.name);
    if (!nodad) netns.setParameters({ 'net/ipv6/conf/all/accept_dad': 1, 'net/ipv6/conf/default/accept_dad': 1 });
    const ids = { NetworkID, EndpointID };
    const Interface = { Address: `${address}/24`, AddressIPv6: `${address6}/64`, MacAddress: own };
    await this.call('CreateEndpoint', { ...ids, Interface });
    const joined = await this.call('Join', { ...ids, SandboxKey: `/run/netns/${netns.name}` });
    const { SrcName: source } = joined['InterfaceName'] as { readonly SrcName: string };
    await this.host.ip([`link set ${source} netns ${netns.name}`]);
    await netns.ip([
      `link set ${source} name eth0 address ${own}`,
      `address add ${address}/24 dev eth0`,
      `address add ${address6}/64 dev eth0${nodad ? ' nodad' : ''}`,
      'link set eth0 up',
    ]);
    const remove = async (): Promise<void> => {
      await netns.ip([
        `link set eth0 down`,
        `link set eth0 name ${source}`,
        `link set ${source} netns ${this.host.name}`,
      ]);
      for (const method of ['Leave', 'DeleteEndpoint']) await this.call(method, ids);
    };
    return { netns, mac: own, address, address6, remove };
  }

  /** Ends and removes everything. Idempotent. */
  async close(): Promise<void> {
    await this.#plugin?.kill();
    this.#withdraw();
    this.#remove();
  }

  async #lay(): Promise<void> {
    const [host, machine, sw] = (await Netns.create(this.#namespaces)) as [Netns, Netns, Netns];
    await sw.ip([
      'link add br0 type bridge',
      'link set br0 up',
      ...[host, machine].flatMap((each, index) => {
        const port = index === 0 ? 'host' : 'machine';
        return [`link add ${port} type veth peer name eth0 netns ${each.name}`, `link set ${port} master br0 up`];
      }),
    ]);
    await host.ip(['link set eth0 up', `address add ${LAN.host}/24 dev eth0`]);
    await machine.ip([
      'link set eth0 up',
      `address add ${LAN.machine}/24 dev eth0`,
      `address add ${LAN.machine6}/64 dev eth0 nodad`,
    ]);
    const what = 'the switch';
    await waitFor(async () => (await machine.run(pingOnce(LAN.host), { mayFail: true })).code === 0, { what });
  }

  async #startPlugin(): Promise<void> {
    const [, words = ''] = /^CapabilityBoundingSet=(.*)$/m.exec(readFileSync(UNIT, 'utf8')) ?? [];
    const kept = words.split(' ').map((word) => `+${word.toLowerCase().replace(/^cap_/, '')}`);
    const limited = ['setpriv', `--bounding-set=${['-all', ...kept].join(',')}`, '--no-new-privs'];
    const argv = [process.execPath, '--import', TSX, PLUGIN, this.#file('sock'), this.#directory, 'eth0'];
    this.#plugin = this.host.start([...limited, ...argv]);
    await this.#plugin.waitForLine(/answering docker/, 60_000);
  }

  #file(name: string): string {
    return path.join(this.#directory, name);
  }

  #remove(): void {
    deleteNamespaces(this.#namespaces);
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** Asks once whether an address answers. */
export function pingOnce(address: string): string[] {
  return ['ping', '-n', '-c', '1', '-W', '1', address];
}

function idOf(n: number): string {
  return n.toString(16).padStart(8, '0').repeat(8);
}
