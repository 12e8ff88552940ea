import type { Netns } from './netns.js';
import type { Rig } from './rig.js';

/** Of a querier that asks so often that nothing has to be waited for. */
const SNOOPING =
  'mcast_snooping 1 mcast_query_response_interval 50 mcast_query_interval 200 mcast_startup_query_interval 50';

/** The switch of a rig, as one that passes multicast frames only to those who have joined their group (RFC 4541 3). */
export class SnoopingSwitch {
  constructor(private readonly rig: Rig) {}

  get #name(): string {
    return this.rig.router.name.replace(/-gw$/, '-sw');
  }

  /** With a querier; without it, or once it is off, everybody gets everything. */
  async snoop(isOn: boolean): Promise<void> {
    const options = isOn ? `${SNOOPING} mcast_querier 1` : 'mcast_querier 0 mcast_snooping 0';
    await this.rig.router.run(['ip', '-n', this.#name, 'link', 'set', 'br0', 'type', 'bridge', ...options.split(' ')]);
  }

  /** The groups that stand for addresses (RFC 4291 2.7.1) which it has an entry for, in order. */
  async groups(): Promise<readonly string[]> {
    const { stdout } = await this.rig.router.run(['bridge', '-n', this.#name, 'mdb', 'show']);
    return [...new Set(stdout.match(/ff02::1:ff[0-9a-f]{2}:[0-9a-f]{1,4}/g))].sort();
  }
}

/** The groups that stand for addresses which a host is in on its interface, in order. */
export async function joinedGroups(netns: Netns): Promise<readonly string[]> {
  const { stdout } = await netns.run(['ip', '-6', 'maddr', 'show', 'dev', 'eth0']);
  return [...new Set(stdout.match(/ff02::1:ff[0-9a-f]{2}:[0-9a-f]{1,4}/g))].sort();
}
