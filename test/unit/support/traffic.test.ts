import assert from 'node:assert/strict';
import { parsePcap } from '../../support/capture.js';
import { parseIperf, parsePing, withoutPending } from '../../support/traffic.js';

describe('parsePing', () => {
  it('reads times and losses', () => {
    const output = `PING 192.0.2.1 (192.0.2.1) 56(84) bytes of data.
64 bytes from 192.0.2.1: icmp_seq=1 ttl=64 time=0.071 ms
64 bytes from 192.0.2.1: icmp_seq=3 ttl=64 time=12 ms

--- 192.0.2.1 ping statistics ---
3 packets transmitted, 2 received, 33.3333% packet loss, time 2043ms
rtt min/avg/max/mdev = 0.071/6.035/12.000/5.964 ms
`;
    assert.deepEqual(parsePing(output), { sent: 3, received: 2, timesMs: [0.071, 12], output });
  });

  it('does not count ICMP errors as answers', () => {
    const output = `From 192.0.2.9 icmp_seq=1 Destination Net Unreachable

--- 10.0.0.1 ping statistics ---
1 packets transmitted, 0 received, +1 errors, 100% packet loss, time 0ms
`;
    const { sent, received, timesMs } = parsePing(output);
    assert.deepEqual([sent, received, timesMs], [1, 0, []]);
  });

  it('fails with what ping said when there is no summary', () => {
    assert.throws(() => parsePing('ping: connect: Network is unreachable\n'), /Network is unreachable/);
  });
});

describe('withoutPending', () => {
  const answers = (...sequences: number[]): string =>
    sequences.map((sequence) => `64 bytes from 192.0.2.1: icmp_seq=${sequence} ttl=64 time=0.1 ms\n`).join('');
  const run = (sent: number, ...sequences: number[]): Parameters<typeof withoutPending>[0] => ({
    ...{ sent, received: sequences.length, timesMs: [], output: answers(...sequences) },
  });

  it('leaves out the requests that an interrupted ping did not wait for', () => {
    assert.equal(withoutPending(run(5, 1, 2, 3), 10).sent, 3);
    assert.equal(withoutPending(run(3, 1, 2, 3), 10).sent, 3);
    assert.equal(withoutPending(run(65_538, 65_535, 0, 1), 10).sent, 65_537);
  });

  it('leaves losses in: those before an answer, and more at the end than an answer takes', () => {
    assert.equal(withoutPending(run(5, 1, 3), 100).sent, 3);
    assert.equal(withoutPending(run(30, 1, 2, 3), 10).sent, 30);
    assert.equal(withoutPending(run(30), 10).sent, 30);
  });
});

describe('parseIperf', () => {
  it('takes what the receiver counted', () => {
    const sum = { bytes: 900, seconds: 2, bits_per_second: 3600 };
    const json = JSON.stringify({ end: { sum_sent: { ...sum, bytes: 1000, retransmits: 7 }, sum_received: sum } });
    assert.deepEqual(parseIperf(json), { bitsPerSecond: 3600, bytes: 900, seconds: 2, retransmits: 7 });
  });

  it('fails in the words of iperf3', () => {
    const json = JSON.stringify({ end: {}, error: 'unable to connect to server: Connection refused' });
    assert.throws(() => parseIperf(json), /iperf3: unable to connect to server: Connection refused/);
  });
});

describe('parsePcap', () => {
  const file = (isLittle: boolean, isNano: boolean): Buffer => {
    const word = (value: number): Buffer => {
      const bytes = Buffer.alloc(4);
      if (isLittle) bytes.writeUInt32LE(value);
      else bytes.writeUInt32BE(value);
      return bytes;
    };
    const magic = isNano ? 0xa1b23c4d : 0xa1b2c3d4;
    const head = [word(magic), Buffer.alloc(12), word(262_144), word(1)];
    const record = [word(2), word(isNano ? 500_000_000 : 500_000), word(3), word(3), Buffer.from('abc')];
    return Buffer.concat([...head, ...record, ...record]);
  };

  for (const [isLittle, isNano] of [
    [true, false],
    [false, false],
    [true, true],
    [false, true],
  ] as const) {
    it(`reads ${isLittle ? 'little' : 'big'} endian files with ${isNano ? 'nano' : 'micro'}seconds`, () => {
      const { linkType, frames } = parsePcap(file(isLittle, isNano));
      assert.equal(linkType, 1);
      assert.deepEqual(
        frames.map(({ timeMs, data }) => [timeMs, data.toString()]),
        [
          [2500, 'abc'],
          [2500, 'abc'],
        ],
      );
    });
  }

  it('leaves out a record that was cut off', () => {
    assert.equal(parsePcap(file(true, false).subarray(0, -1)).frames.length, 1);
  });

  it('refuses other files', () => {
    assert.throws(() => parsePcap(Buffer.alloc(100)), /not a pcap file/);
  });
});
