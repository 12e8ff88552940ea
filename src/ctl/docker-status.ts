import { DockerService } from '../docker/docker-service.js';
import { systemctl } from '../systemd/systemctl.js';
import { defineCommand, EXIT, printJson } from './command.js';

const AUTHORS = {
  program: 'written by tsflannelctl docker enable',
  copy: 'copied by hand',
  other: 'written by somebody else',
} as const;

/** `docker status` */
export const dockerStatus = defineCommand({
  name: 'docker status',
  summary: 'Tell whether Docker takes its values from the overlay, and runs with those of now',
  operands: [],
  flags: {},
  exits: ['differences'],
  async run(context, { options }) {
    const state = await new DockerService(systemctl).state();
    const { dropIn, isFollowing, isRunning, problems } = state;
    if (options.json) {
      printJson(context, state);
    } else {
      const author = dropIn.author === null ? 'not there' : AUTHORS[dropIn.author];
      context.out.line(`drop-in    ${dropIn.path}: ${author}`);
      context.out.line(`form       ${dropIn.form ?? 'none: Docker chooses its addresses by itself'}`);
      context.out.line(
        `following  ${isFollowing ? 'yes' : 'no'}: Docker is${isFollowing ? '' : ' not'} restarted by itself when values change`,
      );
      context.out.line(`docker     ${isRunning ? 'runs' : 'does not run'}`);
      for (const problem of problems) context.out.line(`next: ${problem}`);
    }
    return problems.length === 0 ? EXIT.ok : EXIT.differences;
  },
});
