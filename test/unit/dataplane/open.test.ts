import assert from 'node:assert/strict';
import { openTunnelFor } from '../../../src/dataplane/open.js';
import type { OpenTunnel, Tunnel, TunnelOptions } from '../../../src/dataplane/tunnel.js';
import { OverlayError } from '../../../src/errors.js';
import { silentLogger } from '../../../src/log.js';

const OPTIONS = {} as TunnelOptions;

const opening =
  (device: string): OpenTunnel =>
  () =>
    Promise.resolve({ device } as Tunnel);
const failing =
  (error: Error): OpenTunnel =>
  () =>
    Promise.reject(error);
const each = { native: opening('native'), portable: opening('portable'), kernel: opening('kernel') };
const missing = new OverlayError('ERR_ADDON_MISSING', 'cannot load the native packet path', { hint: 'build it' });

describe('openTunnelFor', () => {
  const warnings: unknown[] = [];
  const log = { ...silentLogger, warn: (...line: unknown[]) => warnings.push(line) };
  beforeEach(() => warnings.splice(0));

  for (const kind of ['native', 'portable', 'kernel'] as const) {
    it(`opens a ${kind} tunnel and no other when told to`, async () => {
      const open = openTunnelFor(kind, log, each);
      assert.equal((await open(OPTIONS)).device, kind);
    });
  }

  it('does not fall back where the native tunnel was demanded', async () => {
    const open = openTunnelFor('native', log, { ...each, native: failing(missing) });
    await assert.rejects(open(OPTIONS), missing);
  });

  it('prefers the native tunnel with the kernel path', async () => {
    const open = openTunnelFor('auto', log, each);
    assert.equal((await open(OPTIONS)).device, 'kernel');
    assert.deepEqual(warnings, []);
  });

  it('falls back without the addon, with one warning that carries the hint, however many tunnels are opened', async () => {
    const open = openTunnelFor('auto', log, { ...each, kernel: failing(missing) });
    for (let i = 0; i < 3; i++) assert.equal((await open(OPTIONS)).device, 'portable');
    assert.equal(warnings.length, 1);
    assert.match(JSON.stringify(warnings), /"hint":"build it"/);
  });

  it('does not fall back for a trouble that the portable tunnel would meet too', async () => {
    const busy = new OverlayError('ERR_PORT_IN_USE', 'cannot bind');
    const open = openTunnelFor('auto', log, { ...each, kernel: failing(busy) });
    await assert.rejects(open(OPTIONS), busy);
    assert.deepEqual(warnings, []);
  });
});
