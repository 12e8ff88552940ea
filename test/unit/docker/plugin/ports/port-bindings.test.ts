import assert from 'node:assert/strict';
import { readBindings } from '../../../../../src/docker/plugin/ports/port-bindings.js';
import { Request } from '../../../../../src/docker/plugin/request.js';

const read = (...entries: readonly object[]): ReturnType<typeof readBindings> =>
  readBindings(Request.parse(JSON.stringify({ 'com.docker.network.portmap': entries })));

describe('readBindings', () => {
  it('reads what Docker 20.10, 26.1 and 28.5 send', () => {
    const bindings = read(
      { Proto: 17, IP: '', Port: 90, HostIP: '', HostPort: 9000, HostPortEnd: 9003 },
      { Proto: 6, IP: '', Port: 70, HostIP: '127.0.0.1', HostPort: 0, HostPortEnd: 0 },
    );
    assert.deepEqual(
      bindings.map(({ protocol, port, hostAddress, hostPort, hostPortEnd }) => [
        protocol,
        port,
        hostAddress?.toString(),
        hostPort,
        hostPortEnd,
      ]),
      [
        ['udp', 90, undefined, 9000, 9003],
        ['tcp', 70, '127.0.0.1', 0, 0],
      ],
    );
  });

  it('takes none for none', () => {
    assert.deepEqual(readBindings(Request.parse('{}')), []);
  });

  for (const bad of [
    { Proto: 1, Port: 80, HostPort: 0, HostPortEnd: 0 },
    { Proto: 6, Port: 0, HostPort: 0, HostPortEnd: 0 },
    { Proto: 6, Port: 80, HostPort: 65_536, HostPortEnd: 65_536 },
    { Proto: 6, Port: 80, HostPort: -1, HostPortEnd: 0 },
    { Proto: 6, Port: '80', HostPort: 0, HostPortEnd: 0 },
    { Proto: 6, Port: 80, HostIP: 'x', HostPort: 0, HostPortEnd: 0 },
  ]) {
    it(`refuses ${JSON.stringify(bad)}`, () => {
      assert.throws(() => read(bad), { code: 'ERR_PLUGIN_REQUEST' });
    });
  }
});
