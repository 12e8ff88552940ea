import { hostname } from 'node:os';
import path from 'node:path';
import type { Clock } from '../clock.js';
import { settingsOf } from '../config/daemon-settings.js';
import type { DaemonOptions } from '../config/flags.js';
import { DEFAULT_PATHS, STATE_FILES } from '../config/paths.js';
import { ReachFollower } from '../container/reach-follower.js';
import { type KernelPathHost, kernelTunnels } from '../dataplane/kernel-tunnel.js';
import { openNativeTunnel } from '../dataplane/native.js';
import { openTunnelFor, wantsKernelPath } from '../dataplane/open.js';
import { openPortableTunnel } from '../dataplane/portable.js';
import { addressesOfEndpoints } from '../etcd/endpoint-addresses.js';
import { storeOptionsOf } from '../etcd/store-options.js';
import { EtcdStore } from '../etcd/store.js';
import { Firewall } from '../firewall/firewall.js';
import type { LeveledLogger } from '../log.js';
import { readDeviceCounters } from '../netlink/device-counters.js';
import { Netlink } from '../netlink/netlink.js';
import { ObserveServer } from '../observe/server.js';
import { EchoSocket } from '../reach/echo-socket.js';
import { NetlinkKernel } from '../reconcile/netlink-kernel.js';
import { instanceOf } from '../reconcile/ownership.js';
import { programGroups } from '../sys/program-group.js';
import { systemSecretFiles } from '../sys/secret-file.js';
import { systemFiles } from '../sys/text-files.js';
import { ServiceManager, takeInheritedDescriptors } from '../systemd/notify.js';
import { openAnnouncementPort } from '../docker/plugin/announcement-port.js';
import { FormerValuesFile, PARAMETERS_OF } from '../reconcile/former-values-file.js';
import { openContainerNetworks } from './container-networks.js';
import { readHostIdentity } from './host-identity.js';
import { withdrawKernelPath } from './kernel-path-remains.js';
import { readMachineIdentity } from './machine.js';
import { NdpProxy } from './ndp/ndp-proxy.js';
import { openQuestionSocket } from './ndp/question-socket.js';
import type { DaemonParts } from './parts.js';
import { ProblemLog } from './problem-log.js';
import { inheritedTunnels } from './tunnel-store.js';

/** Name of the sockets in tsflannel-docker-plugin.socket. */
const PLUGIN_DESCRIPTOR = 'docker-plugin';

/** What the process gives its daemon. */
export interface DaemonRuntime {
  readonly log: LeveledLogger;
  readonly clock: Clock;
  /** Variables of the service manager are taken out of it. */
  readonly environment: Record<string, string | undefined>;
  readonly pid: number;
}

/**
 * The parts of a daemon on this host: etcd, the kernel of this network namespace, its packet filter and files.
 *
 * @throws {@link OverlayError} `ERR_ETCD_ENDPOINT`, `ERR_TLS_FILE`, `ERR_PASSWORD_FILE`, `ERR_NETLINK`
 */
export async function systemParts(options: DaemonOptions, runtime: DaemonRuntime): Promise<DaemonParts> {
  const { clock, environment, pid } = runtime;
  const log = new ProblemLog(runtime.log, () => clock.wallMs());
  const hostIdentity = await readHostIdentity();
  const endpoints = options.etcdEndpoints.join(',');
  const settings = settingsOf(options, process.cwd());
  const inherited = takeInheritedDescriptors(environment, pid);
  const machine = await readMachineIdentity(hostIdentity);
  const store = new EtcdStore({ ...storeOptionsOf(options), log, clock });
  const netlink = Netlink.open({ clock });
  const formerValues = FormerValuesFile.open(options.stateDir);
  const former = formerValues.of(PARAMETERS_OF.kernelPath);
  const service = new ServiceManager({ environment, pid, clock, logger: log });
  const usesKernelPath = wantsKernelPath(options.datapath);
  const linkOf: KernelPathHost['linkOf'] = (name) => netlink.links.get(name);
  const leavesBulk = options.datapath === 'auto';
  const host = { clock, linkOf, former, keepsDescriptors: service.isPresent, leavesBulk };
  const tunnels = inheritedTunnels(inherited);
  const pluginSockets = inherited.get(PLUGIN_DESCRIPTOR);
  const hasPlugin = options.dockerPlugin || pluginSockets !== undefined;
  const containerHost = options.hostId ?? machine.machine;
  const { healthzIp: ip, healthzPort: port, healthzAllowedHosts: allowedHosts, statusSocket } = options;
  return {
    log,
    clock,
    pid,
    hostName: hostname(),
    hostIdentity,
    machine,
    service,
    tunnels: {
      open: openTunnelFor(options.datapath, log, {
        native: openNativeTunnel,
        portable: openPortableTunnel,
        kernel: kernelTunnels(host, openNativeTunnel),
      }),
      workers: options.udpWorkers,
      disabledOffloads: options.disableOffloads,
      inherited: usesKernelPath ? tunnels : withdrawKernelPath(tunnels, { clock, service, former }),
    },
    store,
    storeAddresses: () => addressesOfEndpoints(endpoints),
    netlink,
    kernel: new NetlinkKernel(clock),
    formerValues: formerValues.of(PARAMETERS_OF.overlay),
    firewall: new Firewall({ log, clock, resyncMs: options.iptablesResync * 1000 }),
    programs: { run: programGroups(clock), environment },
    openEchoPort: EchoSocket.open,
    files: systemFiles,
    privateKeyFile: environment.WIREGUARD_KEY_FILE || DEFAULT_PATHS.privateKey,
    secretFiles: systemSecretFiles,
    ...(hasPlugin && {
      containerReach: {
        host: containerHost,
        follower: (onChange) => {
          const file = path.join(options.stateDir, STATE_FILES.containerReach);
          return new ReachFollower({
            store,
            clock,
            log,
            files: systemFiles,
            file,
            etcdPrefix: options.etcdPrefix,
            onChange,
          });
        },
      },
      openContainerNetworks: (host) =>
        openContainerNetworks(
          {
            clock,
            log,
            store,
            netlink,
            openKernel: () => new NetlinkKernel(clock),
            formerValues: formerValues.of(PARAMETERS_OF.containers),
            files: systemFiles,
            stateDirectory: options.stateDir,
            etcdPrefix: options.etcdPrefix,
            instance: instanceOf(options.etcdPrefix),
            host: containerHost,
            hostName: hostname(),
            ttlSeconds: options.containerAddressTtl,
            resyncMs: options.iptablesResync * 1000,
            inheritedSockets: pluginSockets,
          },
          host,
        ),
    }),
    ...(options.ndpProxy && {
      openNdpProxy: (leased) =>
        new NdpProxy({
          clock,
          log,
          netlink,
          kernel: new NetlinkKernel(clock),
          instance: instanceOf(options.etcdPrefix),
          formerValues: formerValues.of(PARAMETERS_OF.ndpProxy),
          announcements: openAnnouncementPort(netlink.links),
          openQuestions: openQuestionSocket,
          leased,
        }),
    }),
    deviceCounters: readDeviceCounters,
    observe: (source) =>
      ObserveServer.start({
        ip,
        port,
        allowedHosts,
        statusSocket,
        settings,
        source,
        log,
        leveled: runtime.log,
        clock,
      }),
  };
}
