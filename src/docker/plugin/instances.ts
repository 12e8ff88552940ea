/** How the plugin of a daemon signs devices, as in their alias; see `instanceOf()`. */
export interface PluginInstances {
  /** What lies on the host for networks. */
  readonly host: string;
  /** Interfaces for containers; not the same, since a reconciler removes what carries its mark and is not desired. */
  readonly container: string;
}

/** Those of the plugin of that daemon. */
export function pluginInstances(instance: string): PluginInstances {
  const host = `${instance}:docker`;
  return { host, container: `${host}:container` };
}
