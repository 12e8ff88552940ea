import { access, readFile, readdir } from 'node:fs/promises';
import path from 'node:path';
import { type Prefix } from '../ip/prefix.js';
import { SYSCTL, sysctlName } from '../netlink/sysctl-paths.js';
import { MASQUERADE_CHAIN, type SavedTables, formatWords, parseRule } from './iptables-plan.js';

/** Something outside our rules that works against them. */
export interface FirewallFinding {
  readonly message: string;
  /** What fixes it, as an imperative sentence without a full stop. */
  readonly hint: string;
}

/** Where the rules are: in iptables, others' rules can stand before our jump; in nftables, all of theirs are apart. */
type Mode = 'iptables' | 'nftables';

/**
 * Rules of others that masquerade containers of this host before our rules see the packet.
 *
 * @remarks The classic case is a Docker daemon that was started with its own masquerading: containers then reach
 * their peers on other hosts under the address of the tunnel device.
 */
export function ownMasqueradeFirst(saved: SavedTables, subnet: Prefix, mode: Mode): readonly FirewallFinding[] {
  return rulesBeforeJump(saved, mode)
    .filter((words) => {
      const { source, destination, target } = parseRule(words);
      const isTranslation = target === 'MASQUERADE' || target === 'SNAT';
      return isTranslation && source?.isNegated === false && source.prefix.overlaps(subnet) && !destination;
    })
    .map((words) => ({
      message: `a rule of others hides the containers of ${subnet.toString()} from the overlay: POSTROUTING ${formatWords(words)}`,
      hint: 'start Docker with --ip-masq=false, or remove that rule',
    }));
}

function rulesBeforeJump(saved: SavedTables, mode: Mode): readonly (readonly string[])[] {
  const { table, parent, chain } = MASQUERADE_CHAIN;
  const rules = saved.rules.get(table)?.get(parent) ?? [];
  const jump = rules.findIndex((words) => parseRule(words).target === chain);
  return mode === 'iptables' && jump >= 0 ? rules.slice(0, jump) : rules;
}

/** Where {@link bridgeNetfilterFinding} looks. */
export interface BridgeNetfilterOptions {
  readonly mode: Mode;
  /** For tests; default `/proc/sys`. */
  readonly sysctlDirectory?: string;
  /** For tests; default `/sys/class/net`. */
  readonly deviceDirectory?: string;
}

/**
 * Whether packets between containers on one bridge miss the rules of iptables.
 *
 * @remarks flanneld 0.26 and later refuse to start without `br_netfilter`. It concerns neither nftables mode nor hosts
 * without a bridge, and of the rest only those where kube-proxy translates addresses of services; so it is a finding
 * and no error.
 */
export async function bridgeNetfilterFinding(options: BridgeNetfilterOptions): Promise<FirewallFinding | undefined> {
  if (options.mode === 'nftables') return undefined;
  if (!(await hasBridge(options.deviceDirectory ?? '/sys/class/net'))) return undefined;
  const file = path.join(options.sysctlDirectory ?? '/proc/sys', SYSCTL.bridgeNetfilter);
  const value = await readFile(file, 'utf8').catch(() => undefined);
  if (value === undefined) {
    return {
      message: 'packets between containers on one bridge bypass iptables: the module br_netfilter is not loaded',
      hint: 'if services of Kubernetes are used, run modprobe br_netfilter',
    };
  }
  if (value.trim() === '1') return undefined;
  return {
    message: `packets between containers on one bridge bypass iptables: ${sysctlName(SYSCTL.bridgeNetfilter)} is 0`,
    hint: `if services of Kubernetes are used, run sysctl -w ${sysctlName(SYSCTL.bridgeNetfilter)}=1`,
  };
}

async function hasBridge(directory: string): Promise<boolean> {
  for (const device of await readdir(directory).catch(() => [])) {
    const isBridge = await access(path.join(directory, device, 'bridge')).then(
      () => true,
      () => false,
    );
    if (isBridge) return true;
  }
  return false;
}
