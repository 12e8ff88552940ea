/**
 * The rules of Docker 28 for its default bridge in the form of `iptables-save`, which `iptables-restore --noflush`
 * takes: whatever comes for a container from elsewhere than the bridge is dropped, in `raw` by each container's
 * address and in `filter` by the bridge.
 *
 * @param containers - addresses of running containers.
 * @see moby `integration/network/bridge/iptablesdoc/generated` of release 28
 */
export function dockerRules(
  options: { readonly bridge?: string; readonly containers?: readonly string[] } = {},
): string {
  const { bridge = 'docker0', containers = [] } = options;
  return [
    '*filter',
    ':FORWARD DROP [0:0]',
    ...['DOCKER', 'DOCKER-BRIDGE', 'DOCKER-CT', 'DOCKER-FORWARD', 'DOCKER-INTERNAL', 'DOCKER-USER'].map(
      (chain) => `:${chain} - [0:0]`,
    ),
    // Docker inserts these two, in this order, at each start.
    '-I FORWARD -j DOCKER-FORWARD',
    '-I FORWARD -j DOCKER-USER',
    `-A DOCKER ! -i ${bridge} -o ${bridge} -j DROP`,
    `-A DOCKER-BRIDGE -o ${bridge} -j DOCKER`,
    `-A DOCKER-CT -o ${bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
    '-A DOCKER-FORWARD -j DOCKER-CT',
    '-A DOCKER-FORWARD -j DOCKER-INTERNAL',
    '-A DOCKER-FORWARD -j DOCKER-BRIDGE',
    `-A DOCKER-FORWARD -i ${bridge} -j ACCEPT`,
    'COMMIT',
    ...(containers.length === 0
      ? []
      : ['*raw', ...containers.map((address) => `-A PREROUTING -d ${address}/32 ! -i ${bridge} -j DROP`), 'COMMIT']),
    '',
  ].join('\n');
}
