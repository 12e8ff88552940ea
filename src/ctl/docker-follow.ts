import { existsSync } from 'node:fs';
import { intFlag } from '../config/flag-values.js';
import { DockerService } from '../docker/docker-service.js';
import { VALUES_FILE } from '../docker/drop-in.js';
import { followChanges } from '../docker/follow.js';
import { runDockerOpts } from '../docker/run-docker-opts.js';
import { systemctl } from '../systemd/systemctl.js';
import { defineCommand, EXIT } from './command.js';

/** `docker follow` */
export const dockerFollow = defineCommand({
  name: 'docker follow',
  summary: 'Restart Docker if it runs with another subnet or MTU than the daemon has now',
  description:
    'What tsflannel-docker.service runs when subnet.env changes. A restart stops the containers unless Docker has "live-restore".',
  operands: [],
  flags: {
    window: intFlag(
      60,
      { min: 0, max: 86_400 },
      {
        group: 'files',
        help: 'Seconds within which Docker is restarted at a random moment, so that not all hosts do it at once; 0 restarts it at once.',
      },
    ),
  },
  exits: [],
  async run({ clock, signal, environment, out, err }, { options }) {
    await followChanges({
      docker: new DockerService(systemctl),
      refresh: () => {
        // Without values there is nothing to make options of.
        if (!existsSync(VALUES_FILE['subnet-env'])) return;
        runDockerOpts(['-c'], { program: 'mk-docker-opts', environment, stderr: (text) => err.block(text) });
      },
      windowSeconds: options.window,
      clock,
      signal,
      tell: (text) => out.line(text),
    });
    return EXIT.ok;
  },
});
