import { intFlag } from '../config/flag-values.js';
import { defineCommand, EXIT, printJson, STORE_FLAGS, withStore } from './command.js';
import { noConfig } from './config-get.js';

const ENDINGS = {
  limit: 'there may be earlier ones; give a larger --limit',
  first: 'that was the first one, or the first after a deletion',
  compacted: 'etcd has been compacted since; it has forgotten earlier ones',
} as const;

/** `config history` */
export const configHistory = defineCommand({
  name: 'config history',
  summary: 'Print earlier network configurations, as far back as etcd remembers',
  operands: [],
  flags: {
    ...STORE_FLAGS,
    limit: intFlag(10, { min: 1, max: 1000 }, { group: 'observe', help: 'How many at most.' }),
  },
  exits: ['unreachable'],
  run: (context, { options }) =>
    withStore(context, options, async (store) => {
      const history = await store.configHistory(options.limit, context.signal);
      if (history.versions.length === 0) throw noConfig(options.etcdPrefix);
      if (options.json) {
        printJson(context, history);
        return EXIT.ok;
      }
      for (const { revision, text } of history.versions) context.out.block(`revision ${revision}\n${indent(text)}\n`);
      context.out.line(ENDINGS[history.end]);
      return EXIT.ok;
    }),
});

function indent(text: string): string {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => `  ${line}\n`)
    .join('');
}
