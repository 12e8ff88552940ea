import assert from 'node:assert/strict';
import { systemClock } from '../../src/clock.js';
import { PortRefusal, holdPort } from '../../src/docker/plugin/ports/port-holder.js';
import { ContainerFirewall } from '../../src/firewall/containers/container-firewall.js';
import { silentLogger } from '../../src/log.js';
import { SYS, bind, close, connect, errnoName, listen, setsockopt, sockaddrIn, socket } from '../../src/sys/libc.js';
import { ip, net } from '../support/builders.js';
import { onExit } from '../support/cleanup.js';
import { inNamespace } from '../support/in-namespace.js';
import { Netns, deleteNamespaces } from '../support/netns.js';
import { OwnNetns } from '../support/own-netns.js';
import { eventually } from '../support/wait.js';

const PORT = 9899;
const SO_SNDTIMEO = 21; // asm-generic/socket.h; it bounds connect() too
const LIMIT_SECONDS = 20n;

/*
 * The test process is the host:
 *
 *   caller 192.0.2.9 2001:db8::9 ── eth0 192.0.2.1 2001:db8::1 ─ host ─ tsfb-web ── container 198.51.100.2 fd00:1::2
 */
describe('published ports of SCTP', () => {
  let host: OwnNetns;
  let caller: Netns;
  let container: Netns;
  let withdraw = (): void => undefined;
  let firewall: ContainerFirewall;

  const open = (address: string): number => {
    const fd = socket(address.includes(':') ? SYS.AF_INET6 : SYS.AF_INET, SYS.SOCK_STREAM, SYS.IPPROTO_SCTP);
    assert.ok(fd >= 0, errnoName(fd));
    return fd;
  };

  /** Whether an association comes about; the kernel of the one who is called answers by itself. */
  const call = (from: Netns, address: string, port: number): string =>
    inNamespace(from.file, () => {
      const fd = open(address);
      const limit = new BigInt64Array([LIMIT_SECONDS, 0n]);
      assert.equal(setsockopt(fd, SYS.SOL_SOCKET, SO_SNDTIMEO, new Uint8Array(limit.buffer)), 0);
      const result = connect(fd, sockaddrIn(ip(address).toBytes(), port));
      close(fd);
      return result === 0 ? 'associated' : errnoName(result);
    });

  before(async () => {
    host = await OwnNetns.enter('sctp');
    const names = [`${host.name}-caller`, `${host.name}-container`];
    withdraw = onExit(() => deleteNamespaces(names));
    [caller, container] = (await Netns.create(names)) as [Netns, Netns];
    await host.ip([
      `link add eth0 type veth peer name eth0 netns ${caller.name}`,
      'link add tsfb-web type bridge',
      `link add web type veth peer name eth0 netns ${container.name}`,
      'link set web master tsfb-web',
      ...['eth0', 'tsfb-web', 'web'].map((device) => `link set ${device} up`),
      ...['192.0.2.1/24', '2001:db8::1/64'].map((address) => `address add ${address} dev eth0 nodad`),
      ...['198.51.100.1/24', 'fd00:1::1/64'].map((address) => `address add ${address} dev tsfb-web nodad`),
    ]);
    host.setParameters({ 'net/ipv4/ip_forward': 1, 'net/ipv6/conf/all/forwarding': 1 });
    for (const [netns, v4, v6] of [
      [caller, '192.0.2.9/24', '2001:db8::9/64'],
      [container, '198.51.100.2/24', 'fd00:1::2/64'],
    ] as const) {
      await netns.ip(['link set eth0 up', `address add ${v4} dev eth0`, `address add ${v6} dev eth0 nodad`]);
    }
    await container.ip(['route add default via 198.51.100.1', 'route add default via fd00:1::1']);
    inNamespace(container.file, () => {
      for (const any of ['0.0.0.0', '::']) {
        const fd = open(any);
        if (any === '::') setsockopt(fd, SYS.IPPROTO_IPV6, SYS.IPV6_V6ONLY, new Uint8Array([1, 0, 0, 0]));
        assert.equal(bind(fd, sockaddrIn(ip(any).toBytes(), 99)), 0);
        assert.equal(listen(fd, 8), 0);
      }
    });
    firewall = new ContainerFirewall({ log: silentLogger, clock: systemClock, instance: host.name, resyncMs: 0 });
    const ports = ['198.51.100.2', 'fd00:1::2'].map((address) => {
      return { protocol: 'sctp', hostAddress: undefined, hostPort: PORT, address: ip(address), port: 99 } as const;
    });
    const subnets = [net('198.51.100.0/24'), net('fd00:1::/64')];
    const rules = { isInternal: false, isIccAllowed: true, ipv6Firewall: 'closed' } as const;
    const networks = [{ bridge: 'tsfb-web', subnets, ...rules }];
    // An emulated kernel takes longer to load its modules than a host has time to.
    await eventually('the rules', () =>
      firewall.apply({ networks, ports, overlay: [], routed: [], hosts: [], dockerBridges: [] }),
    );
  });

  after(async () => {
    await firewall.close();
    withdraw();
    deleteNamespaces([caller.name, container.name]);
    host.leave();
  });

  for (const [address, own] of [
    ['192.0.2.1', '198.51.100.2'],
    ['2001:db8::1', 'fd00:1::2'],
  ] as const) {
    it(`lead to the container under ${address}, while the daemon holds them, and nothing else does`, () => {
      const any = ip(address.includes(':') ? '::' : '0.0.0.0');
      const release = holdPort({ protocol: 'sctp', address: any, port: PORT });
      assert.ok(release, 'this kernel has SCTP');
      assert.throws(
        () => holdPort({ protocol: 'sctp', address: any, port: PORT }),
        (error) => error instanceof PortRefusal && error.errno === 'EADDRINUSE',
      );
      assert.equal(call(caller, address, PORT), 'associated');
      assert.equal(call(caller, address, PORT + 1), 'ECONNREFUSED');
      assert.equal(call(host, own, 99), 'associated');
      release();
    });
  }
});
