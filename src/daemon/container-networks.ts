import path from 'node:path';
import type { Clock } from '../clock.js';
import { AddressPools } from '../container/address-pools.js';
import type { LanProbe } from '../container/addresses.js';
import { probeLan } from '../container/probe-lan.js';
import type { ContainerRange } from '../config/network-config.js';
import { DockerPlugin } from '../docker/plugin/docker-plugin.js';
import { openSandboxPort } from '../docker/plugin/sandbox-port.js';
import type { Family } from '../ip/address.js';
import type { SharedValueStore } from '../lease/store.js';
import type { Logger } from '../log.js';
import type { Netlink } from '../netlink/netlink.js';
import type { ContainerNetworksStatus } from '../observe/container-status.js';
import type { Kernel } from '../reconcile/kernel.js';
import type { TextFiles } from '../sys/text-files.js';
import { describeContainerNetworks } from './container-status.js';

/** What networks of containers have to know of the daemon, now. */
export interface ContainerHost {
  /** Where networks without a subnet get theirs from. */
  readonly range: (family: Family) => ContainerRange | undefined;
  /** The device of the underlay. */
  readonly defaultParent: () => string | undefined;
}

/** Networks of containers on this host, while they are served. */
export interface ContainerNetworks {
  status(): ContainerNetworksStatus;
  /** Networks, addresses and what lies on the host for them stay. */
  close(): Promise<void>;
}

/** Begins to serve them. */
export type OpenContainerNetworks = (host: ContainerHost) => Promise<ContainerNetworks>;

/** What networks of containers are made of. */
export interface ContainerNetworksParts {
  readonly clock: Clock;
  readonly log: Logger;
  readonly store: SharedValueStore;
  readonly netlink: Netlink;
  /** A kernel of their own, which is closed with them. */
  readonly kernel: Kernel;
  readonly files: TextFiles;
  readonly stateDirectory: string;
  readonly etcdPrefix: string;
  readonly instance: string;
  /** Stands for this host in etcd, whatever its name and addresses are. */
  readonly host: string;
  /** After which addresses of a host that is away come free. */
  readonly ttlSeconds: number;
  /** The listening socket that systemd has opened. */
  readonly inheritedSocket: number | undefined;
}

/**
 * Serves networks of containers: Docker's plugin over the addresses of the cluster.
 *
 * @throws {@link OverlayError} `ERR_PLUGIN_STATE`, `ERR_PLUGIN_SOCKET`, `ERR_NETLINK`
 */
export async function openContainerNetworks(
  parts: ContainerNetworksParts,
  { range, defaultParent }: ContainerHost,
): Promise<ContainerNetworks> {
  const { clock, log, store, netlink, kernel, files, stateDirectory: directory, host, instance } = parts;
  // Which device an address is asked for on is known to the plugin, which in turn gives out the addresses.
  let plugin: DockerPlugin | undefined;
  const probe: LanProbe = async (pool, address) => {
    const device = plugin?.probeParentOf(pool);
    return device === undefined ? undefined : probeLan(device, address, clock);
  };
  const addresses = await AddressPools.open({
    host,
    etcdPrefix: parts.etcdPrefix,
    store,
    clock,
    log,
    files,
    file: path.join(directory, 'container-addresses.json'),
    probe,
    range,
    ttlSeconds: parts.ttlSeconds,
  });
  plugin = new DockerPlugin({
    clock,
    log,
    addresses,
    netlink,
    kernel,
    files,
    openSandboxPort,
    directory,
    instance,
    hostIdentity: host,
    defaultParent,
    inherited: parts.inheritedSocket,
  });
  const served = plugin;
  await served.start();
  return {
    status: () => describeContainerNetworks(served.status(), addresses.status()),
    async close() {
      await served.stop();
      await addresses.close();
      kernel.close();
    },
  };
}
