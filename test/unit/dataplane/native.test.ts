import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {
  ADDON_FILES,
  INTERFACE_VERSION,
  isNativeAvailable,
  loadAddon,
  openNativeTunnel,
} from '../../../src/dataplane/native.js';
import { isOverlayError } from '../../../src/errors.js';
import { IpAddress } from '../../../src/ip/address.js';
import { Prefix } from '../../../src/ip/prefix.js';
import type { TunnelSpec } from '../../../src/dataplane/tunnel-spec.js';
import { skipBecause } from '../../support/skip.js';

describe('loadAddon', () => {
  let directory: string;
  before(() => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'tsflannel-addon-'));
  });
  after(() => {
    rmSync(directory, { recursive: true });
  });
  const file = (name: string, content: string): string => {
    const target = path.join(directory, name);
    writeFileSync(target, content);
    return target;
  };
  const refusal = (files: readonly string[]): { message: string; hint: string | undefined } => {
    try {
      loadAddon(files);
    } catch (error) {
      assert.ok(isOverlayError(error, 'ERR_ADDON_MISSING'));
      return error;
    }
    assert.fail('it was loaded');
  };

  it('says that nothing was built, and how to build it', () => {
    const { message, hint } = refusal([path.join(directory, 'absent.node')]);
    assert.match(message, /cannot load the native packet path: it has not been built/);
    assert.match(hint ?? '', /npm run build:native/);
  });

  it('says what the loader said of a file that is no addon', () => {
    assert.match(refusal([file('broken.node', 'not an ELF file')]).message, /invalid ELF header|file too short/);
  });

  it('refuses an addon of another version by name', () => {
    const other = file('other.cjs', 'exports.interfaceVersion = 0;');
    assert.match(refusal([other]).message, /other\.cjs: it is of version 0, not \d+/);
  });

  it('takes the first file that exists', () => {
    const first = file('first.cjs', `exports.interfaceVersion = ${INTERFACE_VERSION}; exports.name = "first";`);
    const second = file('second.cjs', `exports.interfaceVersion = ${INTERFACE_VERSION}; exports.name = "second";`);
    const addon: object = loadAddon([path.join(directory, 'absent.node'), first, second]);
    assert.equal('name' in addon && addon.name, 'first');
  });

  it('looks for a build on this host before a prebuilt addon of this platform', () => {
    assert.match(ADDON_FILES[0] ?? '', /native\/build\/Release\/tsflannel\.node$/);
    assert.ok(ADDON_FILES[1]?.endsWith(`native/prebuilds/${process.platform}-${process.arch}/tsflannel.node`));
  });
});

describe('openNativeTunnel', () => {
  before(function () {
    if (!isNativeAvailable()) skipBecause(this, 'the addon is not built');
  });

  const spec = (changes: Partial<TunnelSpec> = {}): TunnelSpec => ({
    device: 'flannel0',
    // No host has it, so that nothing is ever created here.
    bindAddress: IpAddress.parse('203.0.113.253'),
    port: 8285,
    mtu: 1472,
    verifySource: 'outer',
    icmpSource: IpAddress.parse('10.5.1.0'),
    ownPrefixes: [Prefix.parse('10.5.1.0/24')],
    peers: [{ subnet: Prefix.parse('10.5.2.0/24'), publicIp: IpAddress.parse('192.0.2.2') }],
    ...changes,
  });
  const open = (changes?: Partial<TunnelSpec>): Promise<unknown> =>
    openNativeTunnel({ spec: spec(changes), workers: 1, disabledOffloads: [], onEvent: () => undefined });

  it('turns the errno of the addon into the error of the step that failed', async () => {
    await assert.rejects(open(), (error) => {
      assert.ok(isOverlayError(error, 'ERR_TUNNEL'));
      assert.match(error.message, /^cannot bind UDP 203\.0\.113\.253:8285: EADDRNOTAVAIL/);
      assert.equal(error.isRetryable, true);
      assert.ok(error.cause instanceof Error);
      return true;
    });
  });

  const v6 = IpAddress.parse('2001:db8::1');
  const unfit: readonly (readonly [what: string, changes: Partial<TunnelSpec>])[] = [
    ['bind address', { bindAddress: v6 }],
    ['ICMP source', { icmpSource: v6 }],
    ['address of this host', { ownPrefixes: [Prefix.host(v6)] }],
    ['subnet', { peers: [{ subnet: Prefix.parse('2001:db8::/64'), publicIp: IpAddress.parse('192.0.2.2') }] }],
    ['public IP', { peers: [{ subnet: Prefix.parse('10.5.2.0/24'), publicIp: v6 }] }],
  ];
  for (const [what, changes] of unfit) {
    it(`refuses an IPv6 ${what}: the wire format has room for nothing else`, async () => {
      await assert.rejects(open(changes), (error) => isOverlayError(error, 'ERR_TUNNEL'));
    });
  }

  it('does not let values through that the addon would have to cut off', async () => {
    await assert.rejects(open({ port: 70_000 }), TypeError);
    await assert.rejects(open({ mtu: -1 }), TypeError);
    await assert.rejects(open({ port: 8285.5 }), TypeError);
  });
});
