import { Rig } from '../support/rig.js';
import { assertTalking } from '../support/traffic.js';

describe('two hosts under Debian’s kernel', () => {
  let rig: Rig;

  before(async () => {
    rig = await Rig.create({ hosts: 2 });
  });

  after(() => rig.close());

  for (const type of ['udp', 'vxlan']) {
    it(`talk over the ${type} backend`, async () => {
      await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: type } });
      await Promise.all(rig.hosts.map((host) => host.startDaemon()));
      await assertTalking(await rig.host(1).addContainer(), await rig.host(2).addContainer());
    });
  }
});
