import type { Clock } from '../clock.js';
import type { IpAddress } from '../ip/address.js';
import type { Lease } from '../lease/lease.js';
import type { WireguardInfo, WireguardPeerInfo } from '../netlink/wireguard.js';
import type { WireguardPathStatus, WireguardStatus } from '../observe/wireguard-status.js';
import type { LinkSpec } from '../reconcile/desired.js';
import type { Kernel } from '../reconcile/kernel.js';
import type { PrivateKeyFile } from './private-key.js';

/** How old what is told of handshakes and bytes may be. Five thousand peers take the kernel some milliseconds. */
const SAMPLE_MS = 10_000;

/**
 * What the kernel says of the WireGuard devices and their peers, read now and then, as asking takes longer than a status
 * may.
 *
 * API: {@link follow} says which devices there are; {@link status} and {@link pathsTo} tell what was found last.
 * Errors: what cannot be read is not told; the reconciler reads the same and reports why.
 */
export class WireguardSamples {
  private devices: readonly string[] = [];
  private found: ReadonlyMap<string, WireguardInfo> = new Map();
  /** Peers by what they are allowed. */
  private bySubnet: ReadonlyMap<string, readonly (readonly [device: string, peer: WireguardPeerInfo])[]> = new Map();
  private cancelTimer: (() => void) | undefined;
  private isClosed = false;

  constructor(
    private readonly kernel: Pick<Kernel, 'getLink' | 'getWireguard'>,
    private readonly clock: Clock,
    private readonly privateKey: Pick<PrivateKeyFile, 'status'>,
  ) {}

  follow(links: readonly LinkSpec[]): void {
    this.devices = links.filter(({ kind }) => kind === 'wireguard').map(({ name }) => name);
    if (this.devices.length > 0 && this.cancelTimer === undefined) this.sampleIn(0);
  }

  /** Undefined while there are no such devices. */
  get status(): WireguardStatus | undefined {
    const { status } = this.privateKey;
    if (this.devices.length === 0 || status === undefined) return undefined;
    const devices = [...this.found].map(([name, { listenPort, peers }]) => ({ name, listenPort, peers: peers.length }));
    return { keyFile: status.file, isKeyFileOpen: status.isOpen, publicKey: status.publicKey, devices };
  }

  /** The peer on each device that carries its packets. */
  pathsTo({ subnet, ipv6Subnet }: Lease): readonly WireguardPathStatus[] {
    const all = [subnet, ipv6Subnet].flatMap((prefix) => this.bySubnet.get(String(prefix)) ?? []);
    return [...new Map(all)].map(([device, { publicKey, endpoint, lastHandshakeMs, rxBytes, txBytes }]) => ({
      device,
      publicKey,
      endpoint: endpoint === undefined ? null : endpointText(endpoint.address, endpoint.port),
      lastHandshakeAt: lastHandshakeMs === undefined ? null : new Date(lastHandshakeMs).toISOString(),
      rxBytes,
      txBytes,
    }));
  }

  close(): void {
    this.isClosed = true;
    this.cancelTimer?.();
  }

  private sampleIn(delayMs: number): void {
    this.cancelTimer = this.clock.after(delayMs, () => {
      void this.sample().finally(() => {
        this.cancelTimer = undefined;
        if (!this.isClosed && this.devices.length > 0) this.sampleIn(SAMPLE_MS);
      });
    });
  }

  private async sample(): Promise<void> {
    const found = new Map<string, WireguardInfo>();
    const bySubnet = new Map<string, (readonly [string, WireguardPeerInfo])[]>();
    for (const device of this.devices) {
      const info = await this.read(device);
      if (info === undefined) continue;
      found.set(device, info);
      for (const peer of info.peers) {
        for (const prefix of peer.allowedIps) {
          const key = prefix.toString();
          bySubnet.set(key, [...(bySubnet.get(key) ?? []), [device, peer]]);
        }
      }
    }
    this.found = found;
    this.bySubnet = bySubnet;
  }

  private async read(device: string): Promise<WireguardInfo | undefined> {
    try {
      const link = this.kernel.getLink(device);
      return link?.kind === 'wireguard' ? await this.kernel.getWireguard(link.index) : undefined;
    } catch {
      return undefined; // the reconciler asks the same, and says why it cannot
    }
  }
}

function endpointText(address: IpAddress, port: number): string {
  return address.family === 4 ? `${address.toString()}:${port}` : `[${address.toString()}]:${port}`;
}
