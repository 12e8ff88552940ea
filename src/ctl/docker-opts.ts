import { runDockerOpts } from '../docker/run-docker-opts.js';
import { defineCommand } from './command.js';

/** `docker-opts`: `mk-docker-opts` under another name. */
export const dockerOpts = defineCommand({
  name: 'docker-opts',
  summary: 'Turn the subnet file into options for Docker; takes the options of mk-docker-opts',
  description: 'The options are -f, -d, -i, -c, -m and -k; -h explains them and ends with 1, as the script does.',
  operands: [],
  flags: {},
  exits: [],
  isRaw: true,
  run: (context, { operands }) =>
    Promise.resolve(
      runDockerOpts(operands, {
        program: 'tsflannelctl docker-opts',
        environment: context.environment,
        stderr: (text) => context.err.block(text),
      }),
    ),
});
