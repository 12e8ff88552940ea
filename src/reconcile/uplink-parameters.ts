import { SYSCTL } from '../netlink/sysctl-paths.js';
import type { SysctlSpec } from './desired.js';

/**
 * What lets the host keep the default route that a router tells it: a host that forwards ignores advertisements unless
 * `accept_ra` is 2, and drops the routes that it has from them at the moment when it begins to forward
 * (`addrconf_fixup_forwarding()`). So it is set before anybody, such as Docker, switches forwarding on, and stays as long
 * as forwarding does. Where nobody wants advertisements (0), or somebody has set it (2), it is left alone.
 */
export function keepsDefaultRoute(device: string): SysctlSpec {
  return {
    path: SYSCTL.acceptRouterAdvertisements(device),
    value: '2',
    from: '1',
    isRestored: true,
    keptWhile: { path: SYSCTL.ipv6Forwarding, value: '1' },
  };
}

/**
 * What has the kernel answer for proxy entries on a device, in this order.
 *
 * @remarks Without a delay: up to 0.8 s is its default, and of what is asked meanwhile only `proxy_qlen` (64) questions
 * are kept. Forwarding stays on when nothing is answered for any more: containers of others need it as well.
 */
export function answersForOthers(device: string): readonly SysctlSpec[] {
  return [
    keepsDefaultRoute(device),
    { path: SYSCTL.ipv6Forwarding, value: '1' },
    { path: SYSCTL.answersAsProxy(device), value: '1', isRestored: true },
    { path: SYSCTL.proxyDelay(device), value: '0', isRestored: true },
  ];
}
