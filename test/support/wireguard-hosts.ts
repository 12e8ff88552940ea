import type { Container, Host, Rig } from './rig.js';
import { ping } from './traffic.js';

/** Of a host's lease, as it lies in etcd. */
export async function published(host: Host): Promise<{ BackendType?: string; BackendData?: { PublicKey?: string } }> {
  const subnet = (host.daemon?.subnetEnv().FLANNEL_SUBNET ?? '').replace(/\.1\/24$/, '.0-24');
  const entries = await host.rig.etcd.list(`${host.rig.etcdPrefix}/subnets/${subnet}`);
  return JSON.parse(entries[0]?.value ?? '{}') as { BackendType?: string; BackendData?: { PublicKey?: string } };
}

/** Makes daemons on the first two hosts of a rig, and a container behind each. */
export async function pairOf(rig: Rig): Promise<readonly [Container, Container]> {
  const hosts = [rig.host(1), rig.host(2)] as const;
  await Promise.all(hosts.map((host) => host.startDaemon()));
  return [await hosts[0].addContainer(), await hosts[1].addContainer()];
}

/** Whether an address answers a container, the first time. */
export async function reaches(from: Container, address: string | undefined): Promise<boolean> {
  return address !== undefined && (await ping(from.netns, address, { count: 1, waitSeconds: 1 })).received === 1;
}

/** Its WireGuard devices, each with its MTU. */
export async function wireguardLinks({ netns }: Host): Promise<string[]> {
  const links = await netns.ipJson(['link', 'show', 'type', 'wireguard']);
  return links.map(({ ifname, mtu }) => `${String(ifname)} ${String(mtu)}`).sort();
}
