import { choiceFlag } from '../config/flag-values.js';
import { FACTS_PATH } from '../container/network-facts.js';
import { ROUTE_FORMATS, formatRoute, upstreamRoutes } from '../container/upstream-routes.js';
import { defineCommand, EXIT, printJson, STORE_FLAGS, withStore } from './command.js';

/** `docker-networks routes` */
export const dockerNetworksRoutes = defineCommand({
  name: 'docker-networks routes',
  summary: 'Print the routes that a router needs to reach containers',
  description:
    'Of networks of type bridge, and ipvlan in modes l3 and l3s: which addresses are behind which host, as it is in etcd now. Containers that move need others.',
  operands: [],
  flags: {
    format: choiceFlag(ROUTE_FORMATS, 'linux', { group: 'observe', help: 'What the router understands.' }),
    ...STORE_FLAGS,
  },
  exits: ['unreachable', 'differences'],
  run: (context, { options }) =>
    withStore(context, options, async (store) => {
      const { routes, unplaced, refused } = upstreamRoutes(await store.listValues(FACTS_PATH, context.signal));
      if (options.json) {
        const rows = routes.map(({ destination, via }) => ({
          destination: destination.toString(),
          via: via.toString(),
        }));
        printJson(context, { routes: rows, unplaced, refused });
      } else {
        for (const route of routes) context.out.line(formatRoute(route, options.format));
        for (const host of unplaced)
          context.err.line(`host ${host} does not tell its address: its containers are left out`);
        for (const what of refused) context.err.line(`left out: ${what}`);
      }
      return unplaced.length + refused.length === 0 ? EXIT.ok : EXIT.differences;
    }),
});
