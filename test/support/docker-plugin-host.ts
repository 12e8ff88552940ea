// A plugin by itself, as a process in the namespaces of an engine: SOCKET DIRECTORY PARENT.
import { systemClock } from '../../src/clock.js';
import { openAnnouncementPort } from '../../src/docker/plugin/announcement-port.js';
import { DockerPlugin } from '../../src/docker/plugin/docker-plugin.js';
import { ContainerFirewall } from '../../src/firewall/containers/container-firewall.js';
import { createLogger } from '../../src/log.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { NetlinkKernel } from '../../src/reconcile/netlink-kernel.js';
import { systemFiles } from '../../src/sys/text-files.js';
import { FakeAddresses } from './fake-addresses.js';

const [socket = '', directory = '', parent = ''] = process.argv.slice(2);
const clock = systemClock;
const log = createLogger({ format: 'text', level: 'debug', isJournal: false, host: 'test', pid: process.pid });
const netlink = Netlink.open();
const plugin = new DockerPlugin({
  clock,
  log,
  addresses: new FakeAddresses(),
  netlink,
  kernel: new NetlinkKernel(clock),
  files: systemFiles,
  announcementPort: openAnnouncementPort(netlink.links),
  directory,
  instance: 'test',
  hostIdentity: directory,
  defaultParent: () => parent,
  overlayMtu: () => 1450,
  overlayFamilies: () => [4, 6],
  firewall: new ContainerFirewall({ log, clock, instance: 'test', resyncMs: 5000 }),
  cluster: () => ({ overlay: [], routed: [], hosts: [] }),
  socket,
});
process.once('SIGTERM', () => void plugin.stop().then(() => process.exit(0)));
await plugin.start();
