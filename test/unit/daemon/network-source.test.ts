import assert from 'node:assert/strict';
import { NetworkSource } from '../../../src/daemon/network-source.js';
import { RecordingLogger } from '../../support/recorder.js';

/** Has nothing against any network. */
const noCheck = (): void => {};

function rig(): { source: NetworkSource; log: RecordingLogger } {
  const log = new RecordingLogger();
  return { source: new NetworkSource('/coreos.com/network/config', log), log };
}

const UDP = '{"Network": "10.5.0.0/16", "Backend": {"Type": "udp", "Port": 9000}}';

describe('network source', () => {
  it('takes a valid configuration and says so once', () => {
    const { source, log } = rig();
    assert.equal(source.take(UDP, noCheck), true);
    assert.equal(source.take(UDP, noCheck), false);
    assert.equal(source.network?.ipv4?.network.toString(), '10.5.0.0/16');
    assert.equal(source.text, UDP);
    assert.equal(log.find(/network configuration/).length, 1);
  });

  for (const [title, text] of [
    ['text that is not JSON', '{"Network"'],
    ['a network too small', '{"Network": "10.5.0.0/31"}'],
    ['a backend that does not exist', '{"Network": "10.5.0.0/16", "Backend": {"Type": "gre"}}'],
    ['an option that the backend cannot use', '{"Network": "10.5.0.0/16", "Backend": {"Type": "udp", "Port": 0}}'],
    ['nothing', undefined],
  ] as const) {
    it(`keeps the last valid one when given ${title}, with the reason`, () => {
      const { source, log } = rig();
      source.take(UDP, noCheck);
      assert.equal(source.take(text, noCheck), false);
      assert.equal(source.network?.backendType, 'udp');
      assert.ok(source.rejected !== undefined);
      const [line] = log.find(/network configuration/, 'error');
      assert.ok(line !== undefined);
      assert.equal(source.take(UDP, noCheck), false, 'the same as in use');
      assert.equal(source.rejected, undefined);
    });
  }

  it('refuses a network that something here speaks against, with the reason, and goes on with the last one', () => {
    const { source, log } = rig();
    const refuse = (): never => {
      throw new Error('it contains 192.0.2.10, an address of etcd');
    };
    assert.equal(source.take(UDP, noCheck), true);
    assert.equal(source.take('{"Network": "192.0.2.0/24"}', refuse), false);
    assert.equal(source.network?.ipv4?.network.toString(), '10.5.0.0/16');
    assert.equal(source.text, UDP);
    assert.match(source.rejected ?? '', /an address of etcd/);
    const [line] = log.find(/network configuration not valid/, 'error');
    assert.equal(line?.fields.kind, 'going on with the last one');
    assert.equal(source.take(UDP, refuse), false, 'what is in use is not asked about again');
    assert.equal(source.rejected, undefined);
  });

  it('says once what it is told again and again', () => {
    for (const text of [UDP, '{"Network"', undefined]) {
      const { source, log } = rig();
      source.take(text, noCheck);
      const rejected = source.rejected;
      const { length } = log.lines;
      for (let turn = 0; turn < 3; turn++) assert.equal(source.take(text, noCheck), false);
      assert.equal(log.lines.length, length, text);
      assert.equal(source.rejected, rejected);
    }
  });

  it('takes a network again that was refused for what has changed meanwhile', () => {
    const { source } = rig();
    source.take(UDP, () => {
      throw new Error('not now');
    });
    assert.equal(source.network, undefined);
    source.take('{}', noCheck);
    assert.equal(source.take(UDP, noCheck), true);
    assert.equal(source.rejected, undefined);
  });

  it('names unused keys and goes on', () => {
    const { source, log } = rig();
    assert.equal(source.take('{"Network": "10.5.0.0/16", "Netwrok": 1}', noCheck), true);
    assert.equal(log.find(/not used/, 'warn').length, 1);
  });

  it('remembers the options of backends that are no longer configured', () => {
    const { source } = rig();
    source.take(UDP, noCheck);
    source.take('{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}', noCheck);
    assert.deepEqual(source.backendFor('udp')?.carrier, { protocol: 'udp', port: 9000 });
    assert.deepEqual(source.backendFor('ipip')?.carrier, { protocol: 'ipip' });
    assert.equal(source.backendFor('gre'), undefined);
  });
});
