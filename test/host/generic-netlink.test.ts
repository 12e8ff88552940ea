import assert from 'node:assert/strict';
import { systemClock } from '../../src/clock.js';
import { isOverlayError } from '../../src/errors.js';
import { CTRL_ATTR, CTRL_CMD_GETFAMILY } from '../../src/netlink/constants.js';
import { GENERIC_HEADER_BYTES, GenericNetlink } from '../../src/netlink/generic.js';
import { AttributeTable } from '../../src/netlink/message.js';

/** The family that every kernel has: it tells of the others. */
const CONTROL = { name: 'nlctrl', version: 2 };

describe('generic netlink', () => {
  let generic: GenericNetlink;

  beforeEach(() => {
    generic = new GenericNetlink({ clock: systemClock, deadlineMs: 5000 });
  });

  afterEach(() => {
    generic.close();
  });

  const families = (): Promise<string[]> =>
    generic.dump<string[]>(
      CONTROL,
      { command: CTRL_CMD_GETFAMILY, what: () => 'list families', fill: () => {} },
      {
        start: () => [],
        onMessage: (reader, names) => {
          const table = new AttributeTable(CTRL_ATTR.MAX);
          names.push(
            table.parse(reader, reader.start + GENERIC_HEADER_BYTES, reader.end).text(CTRL_ATTR.FAMILY_NAME) ?? '',
          );
        },
      },
    );

  it('lists what the kernel tells, several times at once', async () => {
    const [names, ...others] = await Promise.all([families(), families(), families()]);
    assert.ok(names.includes('nlctrl'), names.join());
    for (const other of others) assert.deepEqual(other, names);
  });

  it('says what to do where the kernel lacks an interface, and goes on', async () => {
    const nothing = { name: 'tsflannel-none', version: 1 };
    const request = { command: 1, what: () => 'ask', fill: () => {} };
    for (const ask of [
      () => Promise.resolve().then(() => generic.change(nothing, request)),
      () => generic.dump(nothing, request, { start: () => 0, onMessage: () => {} }),
    ]) {
      await assert.rejects(ask, (error) => {
        assert.ok(isOverlayError(error, 'ERR_NETLINK'));
        return /tsflannel-none: ENOENT/.test(error.message) && /modprobe tsflannel-none/.test(error.hint ?? '');
      });
    }
    assert.ok((await families()).length > 0);
  });

  it('fails after its sockets were closed', async () => {
    await families();
    generic.close();
    await assert.rejects(families, /closed/);
  });
});
