import assert from 'node:assert/strict';
import { NetworkSource } from '../../../src/daemon/network-source.js';
import { RecordingLogger } from '../../support/recorder.js';

function rig(): { source: NetworkSource; log: RecordingLogger } {
  const log = new RecordingLogger();
  return { source: new NetworkSource('/coreos.com/network/config', log), log };
}

const UDP = '{"Network": "10.5.0.0/16", "Backend": {"Type": "udp", "Port": 9000}}';

describe('network source', () => {
  it('takes a valid configuration and says so once', () => {
    const { source, log } = rig();
    assert.equal(source.take(UDP), true);
    assert.equal(source.take(UDP), false);
    assert.equal(source.network?.ipv4?.network.toString(), '10.5.0.0/16');
    assert.equal(source.text, UDP);
    assert.equal(log.find(/network configuration/).length, 1);
  });

  for (const [title, text] of [
    ['text that is not JSON', '{"Network"'],
    ['a network too small', '{"Network": "10.5.0.0/31"}'],
    ['a backend that does not exist', '{"Network": "10.5.0.0/16", "Backend": {"Type": "gre"}}'],
    ['nothing', undefined],
  ] as const) {
    it(`keeps the last valid one when given ${title}, with the reason`, () => {
      const { source, log } = rig();
      source.take(UDP);
      assert.equal(source.take(text), false);
      assert.equal(source.network?.backendType, 'udp');
      assert.ok(source.rejected !== undefined);
      const [line] = log.find(/network configuration/, 'error');
      assert.ok(line !== undefined);
      assert.equal(source.take(UDP), false, 'the same as in use');
      assert.equal(source.rejected, undefined);
    });
  }

  it('names unused keys and goes on', () => {
    const { source, log } = rig();
    assert.equal(source.take('{"Network": "10.5.0.0/16", "Netwrok": 1}'), true);
    assert.equal(log.find(/not used/, 'warn').length, 1);
  });

  it('remembers the options of backends that are no longer configured', () => {
    const { source } = rig();
    source.take(UDP);
    source.take('{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}');
    assert.equal(source.optionsFor('udp').port, 9000);
    assert.deepEqual(source.optionsFor('host-gw'), {});
  });
});
