import assert from 'node:assert/strict';
import {
  dockerOptsUsage,
  formatDockerOpts,
  isRoutedVia,
  parseDockerOptsArguments,
} from '../../../src/docker/docker-opts.js';
import { isOverlayError } from '../../../src/errors.js';

const DEFAULTS = {
  flannelEnvFile: '/run/flannel/subnet.env',
  isFileNamed: false,
  dockerEnvFile: '/run/docker_opts.env',
  isIndividual: true,
  isCombined: true,
  hasMasquerade: true,
  combinedKey: 'DOCKER_OPTS',
};

describe('parseDockerOptsArguments', () => {
  for (const [argv, changes] of [
    [[], {}],
    [['-i'], { isCombined: false }],
    [['-c'], { isIndividual: false }],
    [['-ic'], {}],
    [['-m'], { hasMasquerade: false }],
    [
      ['-f', '/a', '-d/b', '-k', 'K'],
      { flannelEnvFile: '/a', isFileNamed: true, dockerEnvFile: '/b', combinedKey: 'K' },
    ],
    [['-cmf', '/a'], { isIndividual: false, hasMasquerade: false, flannelEnvFile: '/a', isFileNamed: true }],
    [['-f', '-i'], { flannelEnvFile: '-i', isFileNamed: true }],
    [['-k', ''], { combinedKey: '' }],
    [['word', '-m'], {}],
    [['--', '-m'], {}],
    [['-', '-m'], {}],
  ] as const) {
    it(`reads ${argv.join(' ') || 'nothing'}`, () => {
      assert.deepEqual(parseDockerOptsArguments(argv), { ...DEFAULTS, ...changes });
    });
  }

  for (const argv of [['-h'], ['-?'], ['-x'], ['-f'], ['-ix'], ['--help'], ['-c', '-k']]) {
    it(`asks for the usage with ${argv.join(' ')}`, () => assert.equal(parseDockerOptsArguments(argv), undefined));
  }

  it('explains every option', () => {
    for (const letter of 'fdickm')
      assert.match(dockerOptsUsage('mk-docker-opts'), new RegExp(`^  -${letter}  \\S`, 'm'));
  });
});

describe('formatDockerOpts', () => {
  const env = 'FLANNEL_NETWORK=10.9.0.0/16\nFLANNEL_SUBNET=10.9.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n';

  const dualStack = `${env}FLANNEL_IPV6_NETWORK=2001:db8:0:1:8000::/66\nFLANNEL_IPV6_SUBNET=2001:db8:0:1:8005::1/80\n`;

  it("gives Docker's bridge the IPv6 subnet of the host", () => {
    assert.equal(
      formatDockerOpts({ ...DEFAULTS, isIndividual: false }, dualStack, {}),
      'DOCKER_OPTS=" --bip=10.9.7.1/24 --fixed-cidr-v6=2001:db8:0:1:8005::/80 --ip-masq=false --ipv6=true --mtu=1450"\n',
    );
  });

  it('leaves out options of IPv6 that Docker has in its own file: it would not start', () => {
    const text = formatDockerOpts(DEFAULTS, dualStack, {}, new Set(['ipv6', 'fixed-cidr-v6', 'bip']));
    assert.doesNotMatch(text, /ipv6|v6/i);
    assert.match(text, /--bip=/);
  });

  for (const value of ['10.5.0.1/16', '2001:db8::1', 'x', '2001:db8::1/64 --debug']) {
    it(`refuses ${value} for an IPv6 subnet`, () => {
      assert.throws(() => formatDockerOpts(DEFAULTS, `${env}FLANNEL_IPV6_SUBNET=${value}\n`, {}), {
        code: 'ERR_SUBNET_FILE',
      });
    });
  }

  it('writes the individual options in alphabetical order, then all after what was there', () => {
    assert.equal(
      formatDockerOpts(DEFAULTS, env, { DOCKER_OPTS: '--log-level=warn' }),
      'DOCKER_OPT_BIP="--bip=10.9.7.1/24"\n' +
        'DOCKER_OPT_IPMASQ="--ip-masq=false"\n' +
        'DOCKER_OPT_MTU="--mtu=1450"\n' +
        'DOCKER_OPTS="--log-level=warn  --bip=10.9.7.1/24 --ip-masq=false --mtu=1450"\n',
    );
  });

  for (const [what, request, text, environment, expected] of [
    [
      'the combined line alone',
      { isIndividual: false },
      env,
      {},
      'DOCKER_OPTS=" --bip=10.9.7.1/24 --ip-masq=false --mtu=1450"\n',
    ],
    ['another key', { isIndividual: false, combinedKey: 'X' }, 'FLANNEL_MTU=9', { X: 'y' }, 'X="y  --mtu=9"\n'],
    ['no combined line', { isCombined: false }, 'FLANNEL_MTU=9', {}, 'DOCKER_OPT_MTU="--mtu=9"\n'],
    [
      'no masquerading on request',
      { hasMasquerade: false, isIndividual: false },
      env,
      {},
      'DOCKER_OPTS=" --bip=10.9.7.1/24 --mtu=1450"\n',
    ],
    [
      'the negation of false',
      { isCombined: false },
      'FLANNEL_IPMASQ=false',
      {},
      'DOCKER_OPT_IPMASQ="--ip-masq=true"\n',
    ],
    ['an empty value when flannel has written nothing', {}, '', {}, 'DOCKER_OPTS=""\n'],
    ['what was there when flannel has written nothing', {}, '', { DOCKER_OPTS: 'a b' }, 'DOCKER_OPTS="a b "\n'],
    [
      'options of others',
      {},
      'FLANNEL_MTU=9',
      { DOCKER_OPT_Z: '-z', DOCKER_OPT_A: '-a b', DOCKER_OPTS_X: 'no' },
      'DOCKER_OPT_A="-a b"\nDOCKER_OPT_MTU="--mtu=9"\nDOCKER_OPT_Z="-z"\nDOCKER_OPTS=" -a b --mtu=9 -z"\n',
    ],
    [
      'the file rather than the environment',
      { isCombined: false },
      'FLANNEL_MTU=9',
      { FLANNEL_MTU: '8' },
      'DOCKER_OPT_MTU="--mtu=9"\n',
    ],
  ] as const) {
    it(`writes ${what}`, () => {
      assert.equal(formatDockerOpts({ ...DEFAULTS, ...request }, text, environment), expected);
    });
  }

  it('refuses a masquerading that is neither true nor false, unless it is left out', () => {
    const text = 'FLANNEL_IPMASQ=yes';
    assert.throws(
      () => formatDockerOpts(DEFAULTS, text, {}),
      (error) => isOverlayError(error, 'ERR_SUBNET_FILE') && error.message.includes('FLANNEL_IPMASQ "yes"'),
    );
    assert.equal(formatDockerOpts({ ...DEFAULTS, hasMasquerade: false }, text, {}), 'DOCKER_OPTS=""\n');
  });
});

describe('isRoutedVia', () => {
  // Columns of the kernel's fib_route_seq_show; numbers as a little-endian machine prints them.
  const table = (...rows: (readonly [string, string, string])[]): string =>
    [
      'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT',
      ...rows.map(([to, gateway, mask]) => `eth0\t${to}\t${gateway}\t0003\t0\t0\t0\t${mask}\t0\t0\t0`),
    ].join('\n');

  it('finds a gateway for exactly the subnet', () => {
    assert.equal(isRoutedVia('10.9.7.1/24', table(['0007090A', '010200C0', '00FFFFFF'])), true);
    assert.equal(isRoutedVia('10.9.7.129/25', table(['8007090A', '010200C0', '80FFFFFF'])), true);
  });

  it('is content with a route to the bridge, to other subnets and by default', () => {
    const routes = table(
      ['0007090A', '00000000', '00FFFFFF'],
      ['0008090A', '010200C0', '00FFFFFF'],
      ['0000090A', '010200C0', '0000FFFF'],
      ['00000000', '010200C0', '00000000'],
    );
    assert.equal(isRoutedVia('10.9.7.1/24', routes), false);
  });

  it('is content when there is no subnet or no table', () => {
    assert.equal(isRoutedVia('', table(['0007090A', '010200C0', '00FFFFFF'])), false);
    assert.equal(isRoutedVia('10.9.7.1/24', ''), false);
  });
});
