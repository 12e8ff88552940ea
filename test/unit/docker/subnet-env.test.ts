import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { parseNetworkConfig } from '../../../src/config/network-config.js';
import {
  type SubnetEnv,
  formatSubnetEnv,
  parseSubnetEnv,
  readSubnetEnv,
  writeSubnetEnv,
} from '../../../src/docker/subnet-env.js';
import { isOverlayError } from '../../../src/errors.js';
import { IpAddress } from '../../../src/ip/address.js';
import { Prefix } from '../../../src/ip/prefix.js';

const V4: SubnetEnv = {
  network: parseNetworkConfig('{"Network":"10.5.0.0/16"}'),
  lease: { subnet: Prefix.parse('10.5.34.0/24'), ipv6Subnet: undefined },
  mtu: 1472,
  isMasquerading: false,
};

const DUAL: SubnetEnv = {
  network: parseNetworkConfig('{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:5::/48"}'),
  lease: { subnet: Prefix.parse('10.5.34.0/24'), ipv6Subnet: Prefix.parse('fd00:10:5:22::/64') },
  mtu: 1450,
  isMasquerading: true,
};

describe('formatSubnetEnv', () => {
  it('writes what flannel writes for IPv4', () => {
    assert.equal(
      formatSubnetEnv(V4),
      'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n',
    );
  });

  it('adds the two IPv6 lines before the MTU', () => {
    assert.equal(
      formatSubnetEnv(DUAL),
      'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\n' +
        'FLANNEL_IPV6_NETWORK=fd00:10:5::/48\nFLANNEL_IPV6_SUBNET=fd00:10:5:22::1/64\n' +
        'FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n',
    );
  });

  it('can be read back for any subnet', () => {
    fc.assert(
      fc.property(
        fc.nat(0xffffffff).filter((bits) => bits >>> 24 !== 127 && bits >>> 28 !== 14),
        fc.integer({ min: 18, max: 30 }),
        fc.boolean(),
        (bits, length, isMasquerading) => {
          const subnet = Prefix.of(IpAddress.fromValue(4, BigInt(bits)), length);
          const network = parseNetworkConfig(JSON.stringify({ Network: `${subnet.address.toString()}/16` }));
          const text = formatSubnetEnv({ ...V4, network, lease: { subnet, ipv6Subnet: undefined }, isMasquerading });
          const back = parseSubnetEnv(text);
          assert.deepEqual([back.subnet, back.network, back.mtu], [subnet, network.ipv4?.network, 1472]);
          assert.deepEqual(back.problems, []);
        },
      ),
    );
  });
});

describe('parseSubnetEnv', () => {
  it('masks the addresses and reads both families', () => {
    const back = parseSubnetEnv(formatSubnetEnv(DUAL));
    assert.deepEqual([back.network, back.subnet, back.ipv6Network, back.ipv6Subnet].map(String), [
      '10.5.0.0/16',
      '10.5.34.0/24',
      'fd00:10:5::/48',
      'fd00:10:5:22::/64',
    ]);
  });

  it('understands comments, export, quotes and colons', () => {
    const back = parseSubnetEnv(
      '# flannel\nexport FLANNEL_SUBNET="10.5.34.1/24"\nFLANNEL_NETWORK: 10.5.0.0/16 # wide\n',
    );
    assert.equal(String(back.subnet), '10.5.34.0/24');
    assert.equal(String(back.network), '10.5.0.0/16');
  });

  it('takes an empty file, or one cut short, as nothing', () => {
    for (const text of ['', 'FLANNEL_SUB', 'FLANNEL_SUBNET=', 'FLANNEL_SUBNET=,']) {
      const back = parseSubnetEnv(text);
      assert.deepEqual([back.subnet, back.mtu, back.problems.length], [undefined, undefined, 0]);
    }
  });

  for (const value of ['10.5.34.1', '10.5.34.1/33', 'fd00::1/64', '10.5.1.1/24,10.5.2.1/24', 'words']) {
    it(`says what is wrong with ${value}`, () => {
      const back = parseSubnetEnv(`FLANNEL_SUBNET=${value}\nFLANNEL_MTU=x\n`);
      assert.equal(back.subnet, undefined);
      assert.equal(back.mtu, undefined);
      assert.deepEqual(back.problems, [`FLANNEL_SUBNET ${value}: it is not one IPv4 network`]);
    });
  }

  it('never throws, whatever is in the file', () => {
    const piece = fc.constantFrom(
      'FLANNEL_SUBNET',
      'FLANNEL_IPV6_SUBNET',
      '=',
      ':',
      '10.5.1.1/24',
      '"',
      "'",
      '\\',
      '\n',
      ',',
      ' ',
      '/',
    );
    fc.assert(fc.property(fc.array(piece), (pieces) => void parseSubnetEnv(pieces.join(''))));
  });
});

describe('writeSubnetEnv', () => {
  let directory: string;

  beforeEach(async () => (directory = await mkdtemp(path.join(tmpdir(), 'subnet-env-'))));
  afterEach(() => rm(directory, { recursive: true }));

  it('writes what readSubnetEnv reads, making the directory', async () => {
    const file = path.join(directory, 'flannel', 'subnet.env');
    await writeSubnetEnv(file, V4);
    assert.equal(await readFile(file, 'utf8'), formatSubnetEnv(V4));
    assert.equal(String((await readSubnetEnv(file))?.subnet), '10.5.34.0/24');
  });

  it('says which file it cannot write and what to do', async () => {
    const file = path.join(directory, 'file', 'subnet.env');
    await writeFile(path.join(directory, 'file'), '');
    await assert.rejects(writeSubnetEnv(file, V4), (error: unknown) => {
      assert.ok(isOverlayError(error, 'ERR_SUBNET_FILE'));
      assert.ok(error.message.startsWith(`cannot write ${file}: `));
      assert.match(error.hint ?? '', /--subnet-file/);
      return true;
    });
  });

  it('tells a file that is not there from one that cannot be read', async () => {
    assert.equal(await readSubnetEnv(path.join(directory, 'none')), undefined);
    const file = path.join(directory, 'a-directory');
    await mkdir(file);
    await assert.rejects(readSubnetEnv(file), (error) => isOverlayError(error, 'ERR_SUBNET_FILE'));
  });
});
