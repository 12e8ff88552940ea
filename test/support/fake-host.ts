import type { IpAddress } from '../../src/ip/address.js';
import { Prefix } from '../../src/ip/prefix.js';
import type { AddressInfo } from '../../src/netlink/address.js';
import type { LinkInfo } from '../../src/netlink/link.js';
import type { NetlinkEvent, NetlinkTopic } from '../../src/netlink/monitor.js';
import type { RouteFilter, RouteInfo } from '../../src/netlink/route.js';
import type { MachineIdentity } from '../../src/daemon/machine.js';
import type { HostNetlink } from '../../src/underlay/host-network.js';
import { ip, net } from './builders.js';
import { FakeEcho } from './fake-echo.js';
import { FakeFiles } from './fake-files.js';
import { FakeFirewall } from './fake-firewall.js';
import { FakeSecretFiles } from './fake-secret-files.js';
import { FakeKernel, routeInfo } from './fake-kernel.js';
import { FakeProgramGroups } from './fake-program-groups.js';
import type { FakeTunnel } from './fake-tunnel.js';

const DEFAULT_ROUTE = net('0.0.0.0/0');

/** A {@link FakeKernel} whose devices bring the parameters that real ones have. */
class HostKernel extends FakeKernel {
  override addLink(link: Partial<LinkInfo> & { readonly name: string }): LinkInfo {
    const made = super.addLink(link);
    this.sysctls.set(`net/ipv4/conf/${link.name}/accept_local`, '0');
    this.sysctls.set(`net/ipv4/conf/${link.name}/rp_filter`, '0');
    this.sysctls.set(`net/ipv6/conf/${link.name}/accept_ra`, '1');
    return made;
  }

  override delLink(index: number): void {
    const name = this.links.get(index)?.name ?? '';
    super.delLink(index);
    for (const path of [...this.sysctls.keys()]) if (path.split('/')[3] === name) this.sysctls.delete(path);
  }
}

/**
 * A host without a daemon: kernel, packet filter and files in memory, with `eth0` as its way out. All of it stays over
 * restarts of a daemon, except tunnels, which end with their process.
 */
export class FakeHost implements HostNetlink {
  readonly kernel: FakeKernel = new HostKernel();
  readonly firewall = new FakeFirewall();
  readonly files = new FakeFiles();
  readonly secretFiles = new FakeSecretFiles();
  readonly echo = new FakeEcho();
  readonly programs = new FakeProgramGroups();
  /** Those that are open. */
  tunnels: readonly FakeTunnel[] = [];
  private readonly uplink: LinkInfo;
  private current: IpAddress;
  private boots = 1;

  /** @param address - on eth0, inside a /24 whose first address is the router. */
  constructor(
    readonly name: string,
    address: IpAddress,
  ) {
    const loopback = this.kernel.addLink({ name: 'lo', isUp: true, isRunning: true, isLoopback: true, mtu: 65536 });
    this.kernel.putAddress(loopback.index, ip('127.0.0.1'), 8);
    this.uplink = this.kernel.addLink({ name: 'eth0', isUp: true, isRunning: true });
    this.current = address;
    this.bringUp();
  }

  /** The address on eth0. */
  get address(): IpAddress {
    return this.current;
  }

  /** Gives eth0 another address instead of the present one. */
  renumber(address: IpAddress): void {
    this.kernel.delAddress(this.uplink.index, this.current, 24);
    this.current = address;
    this.bringUp();
  }

  /** What a daemon knows this machine by. */
  get machine(): MachineIdentity {
    return { machine: `machine of ${this.name}`, boot: `${this.name} ${this.boots}` };
  }

  /** Starts the machine anew, without its processes: files outside of /run stay. */
  reboot(): void {
    this.boots++;
    for (const { index, name } of [...this.kernel.links.values()]) {
      if (name !== 'lo' && index !== this.uplink.index) this.kernel.delLink(index);
    }
    this.forgetRoutes(DEFAULT_ROUTE);
    this.bringUp();
    this.firewall.spec = undefined;
    for (const file of [...this.files.texts.keys()]) if (file.startsWith('/run/')) this.files.texts.delete(file);
  }

  /** Pulls the cable of eth0 or puts it in again. */
  setCarrier(isRunning: boolean): void {
    this.kernel.setLink(this.uplink.index, { isRunning });
  }

  /** Deletes the routes into a network, as a restart of the network's manager may. */
  forgetRoutes(network: Prefix): void {
    const all = [...this.kernel.routes.values()].flat();
    for (const route of all) if (network.covers(route.destination)) this.kernel.delRoute(route);
  }

  /** Whether that address is on a device that is up. */
  owns(address: IpAddress): boolean {
    const isOnUpLink = (index: number): boolean => this.kernel.links.get(index)?.isUp === true;
    return [...this.kernel.addresses.values()].some((each) => each.address.equals(address) && isOnUpLink(each.index));
  }

  // As netlink tells it

  readonly links = {
    list: (): Promise<readonly LinkInfo[]> => Promise.resolve([...this.kernel.links.values()]),
    get: (identity: string | number): LinkInfo | undefined =>
      typeof identity === 'number' ? this.kernel.links.get(identity) : this.kernel.getLink(identity),
  };

  readonly addresses = {
    list: (index = 0): Promise<readonly AddressInfo[]> => {
      const all = [...this.kernel.addresses.values()];
      return Promise.resolve(index === 0 ? all : all.filter((address) => address.index === index));
    },
  };

  readonly routes = {
    list: async ({ family }: RouteFilter): Promise<readonly RouteInfo[]> => this.kernel.listRoutes(family),
    lookup: (destination: IpAddress): RouteInfo | undefined => this.routeTo(destination),
  };

  subscribe(topics: readonly NetlinkTopic[], onEvent: (event: NetlinkEvent) => void): { close(): void } {
    return this.kernel.subscribe((event) => {
      const topic = event.type === 'fdb' ? 'neighbour' : event.type;
      if (topic === 'resync' || topics.includes(topic)) onEvent(event);
    });
  }

  /** What a daemon opened it closes itself; the host goes on. */
  close(): void {}

  /** The most specific route, those that the kernel makes for addresses on devices included. */
  routeTo(destination: IpAddress): RouteInfo | undefined {
    const connected = [...this.kernel.addresses.values()].map(({ address, index, length }) =>
      routeInfo(Prefix.of(address, length), { index, scope: 'link', prefsrc: address }),
    );
    const [best] = [...connected, ...[...this.kernel.routes.values()].flat()]
      .filter((route) => route.destination.contains(destination))
      .filter(({ index }) => index === 0 || this.kernel.links.get(index)?.isUp === true)
      .sort((a, b) => b.destination.length - a.destination.length || a.metric - b.metric);
    return best?.type === 'unicast' ? best : undefined;
  }

  private bringUp(): void {
    this.kernel.putAddress(this.uplink.index, this.current, 24);
    const gateway = Prefix.of(this.current, 24).address.add(1n);
    this.kernel.putRoute(routeInfo(DEFAULT_ROUTE, { index: this.uplink.index, gateway }), 'replace');
  }
}
