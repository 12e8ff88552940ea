import assert from 'node:assert/strict';
import { readMachineIdentity } from '../../../src/daemon/machine.js';

const BOOT_ID = '/proc/sys/kernel/random/boot_id';
const UUID = '/sys/class/dmi/id/product_uuid';
const SERIAL = '/sys/firmware/devicetree/base/serial-number';

describe('machine identity', () => {
  const identityOf = (files: Readonly<Record<string, string>>, hostIdentity = 'machine-id') =>
    readMachineIdentity(hostIdentity, (file) => {
      const text = files[file];
      return text === undefined ? Promise.reject(new Error('ENOENT')) : Promise.resolve(text);
    });

  it('stays the same over a reboot, which is seen', async () => {
    const before = await identityOf({ [BOOT_ID]: 'first\n', [UUID]: 'u\n' });
    const after = await identityOf({ [BOOT_ID]: 'second\n', [UUID]: 'u\n' });
    assert.equal(after.machine, before.machine);
    assert.deepEqual([before.boot, after.boot], ['first', 'second']);
  });

  for (const [title, file] of [
    ['virtual machine, by the UUID of its firmware', UUID],
    ['board, by its serial number', SERIAL],
  ] as const) {
    it(`tells a ${title}, from the one whose disk it was made from`, async () => {
      const [original, copy] = [await identityOf({ [file]: '1' }), await identityOf({ [file]: '2' })];
      assert.notEqual(copy.machine, original.machine);
    });
  }

  it('depends on the machine id and does not show it', async () => {
    const id = '0123456789abcdef0123456789abcdef';
    const { machine } = await identityOf({}, id);
    assert.notEqual(machine, (await identityOf({}, `${id}0`)).machine);
    assert.match(machine, /^[\da-f]{32}$/);
    assert.notEqual(machine, id);
  });

  it('takes every start for another boot where the kernel does not tell', async () => {
    assert.notEqual((await identityOf({})).boot, (await identityOf({})).boot);
  });

  it('is known on this machine', async () => {
    assert.match((await readMachineIdentity('x')).boot, /^[\da-f-]{36}$/);
  });
});
