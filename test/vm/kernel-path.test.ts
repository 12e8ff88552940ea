import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { KERNEL_PROGRAMS_FILE } from '../../src/dataplane/native.js';
import { Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { eventually } from '../support/wait.js';

/** What the unit leaves to root. */
const AS_UNIT = ['setpriv', '--bounding-set=-all,+net_admin,+net_raw,+sys_nice,+bpf'];

describe('the kernel path on this kernel, with the rights of the unit', () => {
  let rig: Rig;

  before(async function () {
    rig = await Rig.create({ hosts: 2 });
    if (!existsSync(KERNEL_PROGRAMS_FILE)) skipBecause(this, 'the programs of the kernel path have not been compiled');
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'udp' } });
  });

  after(() => rig.close());

  for (const [number, datapath, receiver] of [
    [1, 'auto', 'tc'],
    [2, 'kernel', 'xdp'],
  ] as const) {
    it(`begins with --datapath=${datapath}, and receives by ${receiver}`, async () => {
      const daemon = rig.host(number).makeDaemon({ args: [`--datapath=${datapath}`], within: AS_UNIT });
      await daemon.startAndWait();
      await eventually(`the kernel path of ${datapath}`, async () => {
        const [tunnel] = (await daemon.status()).tunnels;
        const { isActive, receiver: found, refused } = tunnel?.kernelPath ?? {};
        assert.deepEqual({ isActive, found, refused }, { isActive: true, found: receiver, refused: null });
      });
    });
  }
});
