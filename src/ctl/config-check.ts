import { toJsonValue } from '../config/json-reader.js';
import { ordinaryMtu, checkConfig, readConfigFile } from './config-validation.js';
import { defineCommand, EXIT, printJson } from './command.js';
import { describeNetwork } from './network-text.js';

/** `config check FILE` */
export const configCheck = defineCommand({
  name: 'config check',
  summary: 'Check a network configuration without etcd, with the rules of the daemon',
  operands: [
    { name: 'FILE', isOptional: false, help: 'a file with the configuration, or - for standard input', values: 'file' },
  ],
  flags: {},
  exits: ['differences'],
  async run(context, { operands, options }) {
    const checked = checkConfig(await readConfigFile(context, operands[0] ?? ''));
    const { network, unknownKeys } = checked;
    if (options.json) {
      const { backendOptions: nodes } = network;
      const backendOptions = Object.fromEntries(Object.entries(nodes).map(([key, node]) => [key, toJsonValue(node)]));
      printJson(context, { network: { ...network, backendOptions }, mtu: ordinaryMtu(checked), unknownKeys });
    } else {
      context.out.block(describeNetwork(network, ordinaryMtu(checked)));
      for (const key of unknownKeys)
        context.out.line(`unknown key ${key}: nobody reads it; remove it, or fix its spelling`);
    }
    return unknownKeys.length === 0 ? EXIT.ok : EXIT.differences;
  },
});
