import type { Clock } from '../clock.js';
import { CoalescingTask } from '../coalescing-task.js';
import type { Prefix } from '../ip/prefix.js';
import type { AddressInfo } from '../netlink/address.js';
import type { LinkInfo } from '../netlink/link.js';
import type { HostNetlink } from '../underlay/host-network.js';
import type { PendingRestart, SubnetFile } from './subnet-file.js';

/** Docker takes seconds to restart, and nobody waits for this. */
const LOOK_MS = 5000;

/**
 * Looks whether containers have followed a change of subnet or MTU, and takes the hint back once they have.
 *
 * @remarks The kernel is asked and not Docker: in the sandbox of the unit its process cannot be seen, and other engines
 * are followed as well. Where only the MTU changed and no container runs, a bridge that has not taken it over yet (Docker
 * before 25) looks as before; the hint goes with the first container.
 */
export class DockerWatch {
  private readonly looks: CoalescingTask;

  constructor(
    private readonly file: SubnetFile,
    clock: Clock,
    private readonly netlink: Pick<HostNetlink, 'links' | 'addresses'>,
  ) {
    this.looks = new CoalescingTask(clock, async () => {
      await this.look();
      this.start();
    });
  }

  /** Looks from now on, as long as a restart is pending. */
  start(): void {
    if (this.file.pendingRestart !== undefined) this.looks.schedule(LOOK_MS);
  }

  /** Idempotent. */
  close(): void {
    void this.looks.close();
  }

  private async look(): Promise<void> {
    const pending = this.file.pendingRestart;
    if (pending === undefined) return;
    try {
      const links = await this.netlink.links.list();
      if (hasFollowed(links, await this.netlink.addresses.list(), pending)) this.file.noteRestart();
    } catch {
      // The kernel was busy changing what was asked for; the next look comes anyway.
    }
  }
}

/**
 * Whether a bridge has the first address of the subnet, and what hangs on it the MTU.
 *
 * @internal Exported for tests.
 */
function hasFollowed(
  links: readonly LinkInfo[],
  addresses: readonly AddressInfo[],
  { subnet, mtu, isMtuNew, formerIpv6Subnet }: PendingRestart,
): boolean {
  const isBridge = (index: number): boolean => links.some((link) => link.index === index && link.kind === 'bridge');
  if (addresses.some(({ index, address }) => formerIpv6Subnet?.contains(address) === true && isBridge(index)))
    return false;
  return links.some((bridge) => {
    if (bridge.kind !== 'bridge' || !addresses.some((each) => each.index === bridge.index && isFirst(each, subnet))) {
      return false;
    }
    if (!isMtuNew) return true;
    const ports = links.filter(({ masterIndex }) => masterIndex === bridge.index);
    return (ports.length > 0 ? ports : [bridge]).every((link) => link.mtu === mtu);
  });
}

function isFirst({ address, length }: AddressInfo, subnet: Prefix): boolean {
  return address.equals(subnet.address.add(1n)) && length === subnet.length;
}
