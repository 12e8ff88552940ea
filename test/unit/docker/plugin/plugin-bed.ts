import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { DockerPlugin, type DockerPluginParts } from '../../../../src/docker/plugin/docker-plugin.js';
import { type HostPort, PortRefusal } from '../../../../src/docker/plugin/ports/port-holder.js';
import type { ClusterFacts } from '../../../../src/docker/plugin/ports/rule-input.js';
import type { Family } from '../../../../src/ip/address.js';
import type { LinkInfo, LinkChange, NewLink } from '../../../../src/netlink/link.js';
import { OverlayError } from '../../../../src/errors.js';
import { parseMac } from '../../../../src/ip/mac.js';
import { FakeAddresses } from '../../../support/fake-addresses.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { FakeContainerFirewall } from '../../../support/fake-container-firewall.js';
import { FakeFiles } from '../../../support/fake-files.js';
import { RecordingLogger } from '../../../support/recorder.js';
import { waitFor } from '../../../support/wait.js';
import { FakeKernel } from '../../../support/fake-kernel.js';

/** What came back for a call. */
export interface Reply {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

/** Sends one call to a plugin, as Docker does. */
export function post(socket: string, method: string, body: object | string = {}): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath: socket, path: `/${method}`, method: 'POST', agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => (text += part));
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) as Record<string, unknown> }),
      );
    });
    sent.on('error', reject);
    sent.end(typeof body === 'string' ? body : JSON.stringify(body));
  });
}

/** A directory with a socket's path in it. */
export function socketPlace(): { readonly socket: string; remove(): void } {
  const directory = mkdtempSync(path.join(os.tmpdir(), `tsf${process.pid}-plugin-`));
  return {
    socket: path.join(directory, 'plugin.sock'),
    remove: () => rmSync(directory, { recursive: true, force: true }),
  };
}

/** A plugin on a host in memory that has `eth0`, an address on it, and whatever a test adds. */
export class PluginBed {
  readonly clock = new FakeClock();
  readonly kernel = new FakeKernel();
  readonly addresses = new FakeAddresses();
  readonly files = new FakeFiles();
  readonly log = new RecordingLogger();
  /** Requests to make a device, of which the kernel refuses those that this has an errno for. */
  refuse: (link: NewLink) => string | undefined = () => undefined;
  /** Devices out of which addresses were announced. */
  readonly announcedFrom: string[] = [];
  /** What the overlay carries. */
  overlayMtu: number | undefined = 1450;
  overlayFamilies: readonly Family[] | undefined = [4, 6];
  readonly firewall = new FakeContainerFirewall();
  cluster: ClusterFacts | undefined = { overlay: [], routed: [], hosts: [] };
  /** Ports of this host, as `0.0.0.0 80/tcp`, that the plugin keeps, and that other programs have. */
  readonly portsHeld = new Set<string>();
  readonly portsOfOthers = new Set<string>();
  plugin: DockerPlugin;
  private readonly place = socketPlace();

  constructor() {
    this.kernel.addLink({ name: 'eth0', isUp: true, isRunning: true });
    this.plugin = this.makePlugin();
  }

  get socket(): string {
    return this.place.socket;
  }

  /** Where the IPAM driver answers that asks for no MAC addresses. */
  get noMacSocket(): string {
    return path.join(path.dirname(this.place.socket), 'tsflannel-ipvlan.sock');
  }

  link(name: string): LinkInfo {
    const link = this.kernel.getLink(name);
    if (link === undefined) throw new Error(`no device ${name}`);
    return link;
  }

  /** The answer of a call that has to succeed. */
  async call(method: string, body: object = {}): Promise<Readonly<Record<string, unknown>>> {
    const { body: answer } = await post(this.socket, method, body);
    const error = answer['Err'] ?? answer['Error'];
    if (error !== undefined) throw new Error(`${method}: ${JSON.stringify(error)}`);
    return answer;
  }

  /** The error of a call that has to fail. */
  async failure(method: string, body: object = {}): Promise<string> {
    const { body: answer } = await post(this.socket, method, body);
    const error = answer['Err'] ?? answer['Error'];
    if (typeof error !== 'string') throw new Error(`${method} succeeded: ${JSON.stringify(answer)}`);
    return error;
  }

  /** Lets time pass until a call is answered, or has failed. */
  async advanceUntil(answer: Promise<unknown>): Promise<void> {
    let isAnswered = false;
    void answer.catch(() => {}).then(() => (isAnswered = true));
    await waitFor(
      async () => {
        await this.clock.advance(100);
        return isAnswered;
      },
      { what: 'an answer', intervalMs: 1 },
    );
  }

  /** Ends the plugin as a crash or an upgrade does, and starts another one on the same disk and kernel. */
  async restart(): Promise<void> {
    await this.plugin.stop();
    this.plugin = this.makePlugin();
    await this.plugin.start();
  }

  async close(): Promise<void> {
    await this.plugin.stop();
    this.place.remove();
  }

  private holdPort({ address, port, protocol }: HostPort): () => void {
    const key = `${address.toString()} ${port}/${protocol}`;
    if (this.portsOfOthers.has(key)) throw new PortRefusal('EADDRINUSE');
    this.portsHeld.add(key);
    return () => void this.portsHeld.delete(key);
  }

  private makePlugin(): DockerPlugin {
    const { addresses, clock, files, kernel, log } = this;
    const parts: DockerPluginParts = {
      clock,
      log,
      addresses,
      kernel,
      files,
      netlink: this.netlink(),
      announcementPort: {
        sendBriefly: (link) => this.announcedFrom.push(link.name),
        send: (link) => this.announcedFrom.push(link.name),
      },
      directory: '/state',
      instance: 'test',
      hostIdentity: 'host',
      defaultParent: () => 'eth0',
      overlayMtu: () => this.overlayMtu,
      overlayFamilies: () => this.overlayFamilies,
      firewall: this.firewall,
      cluster: () => this.cluster,
      holdPort: (place) => this.holdPort(place),
      socket: this.socket,
    };
    return new DockerPlugin(parts);
  }

  private netlink(): DockerPluginParts['netlink'] {
    const { kernel } = this;
    return {
      links: {
        list: () => kernel.listLinks(),
        get: (identity: string | number) =>
          typeof identity === 'number' ? kernel.links.get(identity) : kernel.getLink(identity),
        add: (link: NewLink) => {
          const errno = this.refuse(link);
          if (errno !== undefined) throw new OverlayError('ERR_NETLINK', `cannot: ${errno}`, { context: { errno } });
          const { kind, name } = link;
          const lowerIndex = 'lowerIndex' in link ? link.lowerIndex : 0;
          const details = detailsOf(link);
          const lowerMac = link.kind === 'ipvlan' ? kernel.links.get(lowerIndex)?.mac : undefined;
          kernel.addLink({
            name,
            kind,
            lowerIndex,
            mtu: link.mtu ?? 1500,
            mac: lowerMac ?? link.mac ?? parseMac('02:00:00:00:00:99'),
            details,
            masterIndex: link.masterIndex ?? 0,
          });
          if (link.kind === 'veth') {
            const { name: peer, ...rest } = link.peer;
            kernel.addLink({ kind, lowerIndex: kernel.getLink(name)?.index ?? 0, ...rest, name: peer });
          }
        },
        set: ({ index }: { readonly index: number }, { alias }: LinkChange) => {
          kernel.setLink(index, alias === undefined ? {} : { alias });
        },
        del: ({ index }: { readonly index: number }) => {
          const ends = [...kernel.links.values()].filter(
            ({ kind, lowerIndex }) => kind === 'veth' && lowerIndex === index,
          );
          for (const end of ends) kernel.delLink(end.index);
          const below = kernel.links.get(index);
          kernel.delLink(index);
          if (below?.kind === 'veth' && kernel.links.has(below.lowerIndex)) kernel.delLink(below.lowerIndex);
        },
      },
      addresses: { list: () => Promise.resolve([...kernel.addresses.values()]) },
      subscribe: (_topics, onEvent) => kernel.subscribe(onEvent),
    };
  }
}

function detailsOf(link: NewLink): LinkInfo['details'] {
  if (link.kind === 'macvlan') return { kind: link.kind, mode: link.mode };
  return link.kind === 'ipvlan' ? { kind: link.kind, mode: link.mode, flag: link.flag } : undefined;
}
