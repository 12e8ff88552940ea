/** Names that Docker gives to its bridges, if nobody gives others (libnetwork `drivers/bridge`, `docker_gwbridge`). */
const DOCKER_BRIDGE = /^(docker0|docker_gwbridge|br-[0-9a-f]{12})$/;

/** Whether a bridge of that name is one of a network of Docker's own. */
export function isDockerBridge(name: string): boolean {
  return DOCKER_BRIDGE.test(name);
}
