import { DockerService } from '../docker/docker-service.js';
import { systemctl } from '../systemd/systemctl.js';
import { defineCommand, EXIT } from './command.js';
import { tellChange } from './docker-enable.js';

/** `docker disable` */
export const dockerDisable = defineCommand({
  name: 'docker disable',
  summary: 'Undo docker enable, so that Docker starts without the overlay',
  description: 'Nothing is restarted: Docker keeps its addresses until then.',
  operands: [],
  flags: {},
  exits: [],
  async run(context, { options }) {
    const change = await new DockerService(systemctl).disable();
    tellChange(context, options.json, change, 'Docker takes nothing from the overlay by a drop-in of ours');
    return EXIT.ok;
  },
});
