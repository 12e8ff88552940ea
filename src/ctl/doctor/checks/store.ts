import type { Check, Found } from '../facts.js';

/** etcd, and what lies in it for the whole cluster. */
export const STORE_CHECKS: readonly Check[] = [
  {
    id: 'etcd',
    title: 'etcd answers',
    run: ({ storeError, etcdEndpoints }) =>
      storeError === undefined
        ? []
        : [
            {
              severity: 'error',
              message: 'etcd does not answer; leases cannot be renewed, and what else depends on it was not looked at',
              evidence: storeError,
              command: `etcdctl --endpoints=${etcdEndpoints.join(',')} endpoint health`,
            },
          ],
  },
  {
    id: 'config',
    title: 'the network configuration is there and valid',
    run: ({ configError, lastValidConfig }): readonly Found[] => {
      if (configError === undefined) return [];
      const command =
        lastValidConfig === undefined
          ? 'tsflannelctl config set FILE'
          : `printf %s ${quoted(lastValidConfig.text)} | tsflannelctl config set --yes - # as it was at revision ${lastValidConfig.revision}`;
      return [
        {
          severity: 'error',
          message:
            lastValidConfig === undefined
              ? 'there is no network configuration that a daemon could use'
              : 'the network configuration cannot be used; running daemons go on with the one before, others do not start',
          evidence: configError,
          command,
        },
      ];
    },
  },
];

/** A configuration in one line, as one word of a shell. */
function quoted(text: string): string {
  return `'${JSON.stringify(JSON.parse(text)).replaceAll("'", "'\\''")}'`;
}
