import { choiceFlag, switchFlag } from '../config/flag-values.js';
import { DockerService, type DockerChange } from '../docker/docker-service.js';
import { DROP_IN_FORMS, VALUES_FILE } from '../docker/drop-in.js';
import { systemctl } from '../systemd/systemctl.js';
import { type CtlContext, defineCommand, EXIT, printJson } from './command.js';

/** `docker enable` */
export const dockerEnable = defineCommand({
  name: 'docker enable',
  summary: 'Let Docker take bridge address and MTU from the overlay, with a drop-in for its unit',
  description:
    'Docker’s own command line stays, with the options of the form behind it. Nothing is restarted; what needs to be is printed. Settings of others that stand against it are left alone and named.',
  operands: [],
  flags: {
    form: choiceFlag(DROP_IN_FORMS, 'subnet-env', {
      group: 'files',
      help: `Take subnet and MTU from ${VALUES_FILE['subnet-env']}, or all options from ${VALUES_FILE['docker-opts']}, which also says whether Docker masquerades.`,
    }),
    follow: switchFlag(false, {
      group: 'files',
      help: 'Also restart Docker by itself when subnet or MTU change: enables tsflannel-docker.path.',
    }),
  },
  exits: [],
  async run(context, { options }) {
    const { form, follow } = options;
    const change = await new DockerService(systemctl).enable({ form, isFollowing: follow });
    tellChange(context, options.json, change, 'Docker is set up for the overlay already');
    return EXIT.ok;
  },
});

/** Prints what was changed and what is to be done. */
export function tellChange(context: CtlContext, isJson: boolean, change: DockerChange, nothing: string): void {
  if (isJson) {
    printJson(context, change);
    return;
  }
  for (const done of change.changes) context.out.line(done);
  if (change.changes.length === 0) context.out.line(nothing);
  for (const command of change.needed) context.out.line(`next: ${command}`);
}
