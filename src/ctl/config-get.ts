import { layoutKeys } from '../etcd/endpoints.js';
import { OverlayError } from '../errors.js';
import { defineCommand, EXIT, printJson, STORE_FLAGS, withStore } from './command.js';

/** `config get` */
export const configGet = defineCommand({
  name: 'config get',
  summary: 'Print the network configuration as it lies in etcd',
  operands: [],
  flags: STORE_FLAGS,
  exits: ['unreachable'],
  run: (context, { options }) =>
    withStore(context, options, async (store) => {
      const entry = await store.readConfig(context.signal);
      if (entry === undefined) throw noConfig(options.etcdPrefix);
      if (options.json) printJson(context, entry);
      else context.out.block(entry.text.endsWith('\n') ? entry.text : `${entry.text}\n`);
      return EXIT.ok;
    }),
});

/** The error for a prefix under which nobody has written a configuration. */
export function noConfig(prefix: string): OverlayError {
  return new OverlayError(
    'ERR_NETWORK_CONFIG',
    `cannot find the network configuration: ${layoutKeys(prefix).config} is empty`,
    {
      hint: 'write one with tsflannelctl config set FILE, or give the right --etcd-prefix',
    },
  );
}
