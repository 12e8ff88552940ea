import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  type DaemonOptions,
  FLAGS,
  OFFLOAD_NAMES,
  describeOptions,
  environmentName,
  logLevelOf,
  parseCommandLine,
} from '../../../src/config/flags.js';
import { formatHelp } from '../../../src/config/help.js';
import { versionText } from '../../../src/config/version.js';
import { OFFLOADS } from '../../../src/dataplane/tunnel.js';
import { OverlayError, describeError } from '../../../src/errors.js';

type Environment = Readonly<Record<string, string | undefined>>;

function run(
  argv: readonly string[],
  environment: Environment = {},
): { options: DaemonOptions; warnings: readonly string[] } {
  const parsed = parseCommandLine(argv, environment);
  assert.ok(parsed.kind === 'run');
  return parsed;
}

function options(...argv: string[]): DaemonOptions {
  return run(argv).options;
}

function assertRefused(argv: readonly string[], message: RegExp, environment: Environment = {}): void {
  assert.throws(
    () => parseCommandLine(argv, environment),
    (error: unknown) => {
      assert.ok(error instanceof OverlayError, String(error));
      assert.equal(error.code, 'ERR_FLAG');
      assert.match(describeError(error), message);
      return true;
    },
  );
}

describe('parseCommandLine', () => {
  it('has the defaults of flannel', () => {
    const { options: defaults, warnings } = run([]);
    assert.deepEqual(warnings, []);
    assert.deepEqual(defaults, {
      etcdEndpoints: ['http://127.0.0.1:4001', 'http://127.0.0.1:2379'],
      etcdPrefix: '/coreos.com/network',
      etcdKeyfile: undefined,
      etcdCertfile: undefined,
      etcdCafile: undefined,
      etcdUsername: undefined,
      etcdPassword: undefined,
      etcdPasswordFile: undefined,
      iface: [],
      ifaceRegex: [],
      ifaceCanReach: undefined,
      publicIp: undefined,
      publicIpv6: undefined,
      subnetFile: '/run/flannel/subnet.env',
      stateDir: '/var/lib/tsflannel',
      statusSocket: '/run/flannel/tsflanneld.sock',
      subnetLeaseRenewMargin: 60,
      dockerPlugin: false,
      allowExtensionCommands: false,
      containerAddressTtl: 86_400,
      hostId: undefined,
      ipMasq: false,
      ipMasqFullyRandomDisable: false,
      iptablesForwardRules: true,
      iptablesResync: 5,
      ipBlackholeRoute: false,
      datapath: 'auto',
      udpWorkers: 0,
      disableOffloads: [],
      healthzAllowedHosts: [],
      healthzIp: '0.0.0.0',
      healthzPort: 0,
      peerProbeInterval: 30,
      logFormat: 'text',
      logLevel: 'info',
      ndpProxy: false,
      v: 0,
      version: false,
      kubeSubnetMgr: false,
      kubeApiUrl: undefined,
      kubeAnnotationPrefix: 'flannel.alpha.coreos.com',
      kubeconfigFile: undefined,
      netConfigPath: '/etc/kube-flannel/net-conf.json',
      setNodeNetworkUnavailable: true,
      vmodule: undefined,
      logBacktraceAt: undefined,
    });
  });

  it('reads a unit file as people write it for flannel', () => {
    const got = options(
      ...['-etcd-endpoints=https://192.0.2.1:2379, https://192.0.2.2:2379', '--etcd-prefix', '/net', '-ip-masq'],
      ...['--iface=eth1', '--iface', '192.0.2.9', '--iface-regex=^en', '--iptables-forward-rules=F', '-v=2'],
      ...['--public-ip=198.51.100.7', '--healthz-port', '0x1F90', '--subnet-lease-renew-margin=1_439'],
    );
    assert.deepEqual(got.etcdEndpoints, ['https://192.0.2.1:2379', 'https://192.0.2.2:2379']);
    assert.equal(got.etcdPrefix, '/net');
    assert.equal(got.ipMasq, true);
    assert.deepEqual(got.iface, ['eth1', '192.0.2.9']);
    assert.deepEqual(got.ifaceRegex, ['^en']);
    assert.equal(got.iptablesForwardRules, false);
    assert.equal(got.publicIp?.toString(), '198.51.100.7');
    assert.equal(got.healthzPort, 8080);
    assert.equal(got.subnetLeaseRenewMargin, 1439);
    assert.equal(logLevelOf(got), 'debug');
  });

  it('takes the level of the log by name, and from --v as flannel has it', () => {
    assert.equal(logLevelOf(options()), 'info');
    assert.equal(logLevelOf(options('--log-level=warn')), 'warn');
    assert.equal(logLevelOf(options('--v=1')), 'debug');
    assert.equal(logLevelOf(options('--v=0', '--log-level=error')), 'error');
    const both = run(['--v=1', '--log-level=warn']);
    assert.equal(logLevelOf(both.options), 'debug');
    assert.deepEqual(both.warnings, ['--log-level: without effect, as --v asks for debug']);
    assert.deepEqual(run(['--v=1', '--log-level=debug']).warnings, []);
  });

  it('lets the last of several values win', () => {
    assert.equal(options('--etcd-prefix=/a', '--etcd-prefix=/b').etcdPrefix, '/b');
    assert.equal(options('--ip-masq', '--ip-masq=false').ipMasq, false);
    assert.deepEqual(options('--disable-offloads=tso', '--disable-offloads=uso').disableOffloads, ['uso']);
  });

  it('takes an empty value as none where none is possible', () => {
    const got = options('--public-ip=', '--etcd-keyfile=', '--iface=', '--iface-regex=', '--iface-can-reach=');
    assert.deepEqual([got.publicIp, got.etcdKeyfile, got.ifaceCanReach], [undefined, undefined, undefined]);
    assert.deepEqual([got.iface, got.ifaceRegex], [[], []]);
  });

  describe('environment', () => {
    it('stands between command line and default', () => {
      const environment = { FLANNELD_ETCD_PREFIX: '/env', FLANNELD_IP_MASQ: 'true', FLANNELD_V: '1' };
      const got = run(['--etcd-prefix=/flag'], environment).options;
      assert.deepEqual(
        [got.etcdPrefix, got.ipMasq, got.v, got.subnetFile],
        ['/flag', true, 1, '/run/flannel/subnet.env'],
      );
    });

    it('is not asked for a flag that is given with its default', () => {
      assert.equal(run(['--ip-masq=false'], { FLANNELD_IP_MASQ: 'true' }).options.ipMasq, false);
    });

    it('counts empty variables as unset', () => {
      assert.equal(
        run([], { FLANNELD_ETCD_PREFIX: '', FLANNELD_HEALTHZ_PORT: '' }).options.etcdPrefix,
        '/coreos.com/network',
      );
    });

    it('gives exactly one entry of a repeatable flag', () => {
      assert.deepEqual(run([], { FLANNELD_IFACE: 'eth0,eth1' }).options.iface, ['eth0,eth1']);
      assert.deepEqual(run(['--iface=eth2'], { FLANNELD_IFACE: 'eth0' }).options.iface, ['eth2']);
    });

    it('knows a variable for every flag', () => {
      assert.equal(environmentName('log_backtrace_at'), 'FLANNELD_LOG_BACKTRACE_AT');
      for (const name of Object.keys(FLAGS)) {
        const { warnings } = run([], { [environmentName(name)]: name.startsWith('kube-sub') ? 'false' : '' });
        assert.deepEqual(warnings, [], name);
      }
    });

    it('names the variable whose value is impossible, instead of going on without it', () => {
      assertRefused(
        [],
        /cannot use the value "x" for FLANNELD_HEALTHZ_PORT: it is not a whole number; use a whole number in 0…65535/,
        {
          FLANNELD_HEALTHZ_PORT: 'x',
        },
      );
      assert.equal(run(['--healthz-port=1'], { FLANNELD_HEALTHZ_PORT: 'x' }).options.healthzPort, 1);
    });

    it('does not stop for FLANNELD_VERSION', () => {
      assert.equal(parseCommandLine([], { FLANNELD_VERSION: 'true' }).kind, 'run');
      assert.equal(parseCommandLine([], { FLANNELD_VERSION: 'nonsense' }).kind, 'run');
    });

    it('warns of variables that no flag has', () => {
      assert.deepEqual(run([], { FLANNELD_ETCD_ENDPOINT: 'x', FLANNEL_SUBNET: 'y', PATH: 'z' }).warnings, [
        'FLANNELD_ETCD_ENDPOINT: without effect, as no flag has this variable',
      ]);
    });
  });

  describe('help and version', () => {
    for (const word of ['-h', '-help', '--help']) {
      it(`shows help for ${word}`, () => assert.deepEqual(parseCommandLine([word], {}), { kind: 'help' }));
    }

    it('shows the version whatever else the environment says', () => {
      const environment = { FLANNELD_HEALTHZ_PORT: 'x' };
      assert.deepEqual(parseCommandLine(['--version'], environment), { kind: 'version' });
      assert.equal(parseCommandLine(['--version=false'], {}).kind, 'run');
    });

    it('reads the version of the package', () => assert.match(versionText(), /^v\d+\.\d+\.\d+/));
  });

  describe('errors', () => {
    for (const [argv, message] of [
      [['--nonsense'], /cannot use --nonsense: there is no such flag; see --help/],
      [['--etcd-endpoint=x'], /flannel gave it up; use --etcd-endpoints/],
      [['--etcd-prefx=x'], /no such flag; did you mean --etcd-prefix\? See --help/],
      [['--listen=:80'], /--listen: flannel gave it up; remove it and let every host reach etcd/],
      [['--networks=a,b'], /run one daemon per network/],
      [['--use-multi-cluster-cidr'], /Kubernetes is not supported/],
      [['--logtostderr'], /the log always goes to standard error/],
      [['--ip-masq', 'false', '--v=1'], /cannot use the word "false": it belongs to no flag; write --ip-masq=false/],
      [['--v=1', 'word'], /cannot use the word "word".*; remove it/],
      [['--v', '1', '--', '--ip-masq'], /cannot use the word "--ip-masq"/],
      [['--ip-masq=yes'], /cannot use the value "yes" for --ip-masq: it is neither true nor false; use true or false/],
      [['--healthz-port=65536'], /out of range; use a whole number in 0…65535/],
      [['--healthz-port=-1'], /out of range/],
      [['--iptables-resync=0'], /for --iptables-resync: it is out of range; use a whole number in 1…86400/],
      [['--subnet-lease-renew-margin=0'], /in 1…1439/],
      [['--subnet-lease-renew-margin=1440'], /in 1…1439/],
      [['--udp-workers=65'], /in 0…64/],
      [['--public-ip=2001:db8::1'], /for --public-ip: it is not an IPv4 address/],
      [['--public-ipv6=192.0.2.1'], /for --public-ipv6: it is not an IPv6 address/],
      [['--iface-can-reach=example.com'], /it is not an IPv4 or IPv6 address/],
      [['--iface-regex=('], /cannot use the value "\(" for --iface-regex/],
      [['--datapath=fast'], /it is not known; use auto, kernel, native, portable/],
      [['--log-format=xml'], /use text, json/],
      [['--log-level=fatal'], /use error, warn, info, debug/],
      [['--disable-offloads=tso,gso'], /there is no offload "gso"; use vnetHdr, tso/],
      [['--etcd-endpoints='], /it is empty; leave it out for http:\/\/127/],
      [['--etcd-endpoints=ftp://192.0.2.1'], /"ftp:\/\/192\.0\.2\.1" is not an endpoint/],
      [['--etcd-endpoints=http://'], /is not an endpoint/],
      [['--subnet-file='], /it is empty; leave it out for \/run\/flannel\/subnet\.env/],
      [['--kube-subnet-mgr'], /only etcd is supported as the store; leave it out and give --etcd-endpoints/],
    ] as const) {
      it(`refuses ${argv.join(' ')}`, () => assertRefused(argv, message));
    }

    it('refuses the Kubernetes store in the environment, too', () => {
      assertRefused([], /only etcd is supported/, { FLANNELD_KUBE_SUBNET_MGR: 'true' });
    });

    it('ends every message about an unknown flag with something to do', () => {
      fc.assert(
        fc.property(fc.stringMatching(/^[a-z][a-z-]{0,20}$/), (name) => {
          if (name in FLAGS || name === 'help' || name === 'h') return;
          assertRefused([`--${name}=1`], /; (?:see|use|remove|run|did you mean) /);
        }),
      );
    });
  });

  describe('warnings', () => {
    it('names Kubernetes flags once, all together', () => {
      assert.deepEqual(run(['--kube-api-url=x', '--net-config-path=y']).warnings, [
        '--kube-api-url, --net-config-path: without effect, as only etcd is supported',
      ]);
    });

    it('takes the flags of klog and says that they do nothing', () => {
      assert.deepEqual(run(['--vmodule=main=2', '--log_backtrace_at=main.go:1']).warnings, [
        '--vmodule, --log_backtrace_at: without effect; use --log-level=debug to see decisions',
      ]);
    });

    it('tells of one half of a pair', () => {
      assert.match(run(['--etcd-keyfile=k']).warnings.join(), /--etcd-keyfile, --etcd-certfile: without effect/);
      assert.match(run([], { FLANNELD_ETCD_PASSWORD: 'p' }).warnings.join(), /--etcd-username, --etcd-password/);
      assert.deepEqual(
        run(['--etcd-keyfile=k', '--etcd-certfile=c', '--etcd-username=u', '--etcd-password=p']).warnings,
        [],
      );
    });
  });

  it('switches off offloads by the names of the data plane, in any case, or all', () => {
    assert.deepEqual(OFFLOAD_NAMES, OFFLOADS);
    assert.deepEqual(options('--disable-offloads=UDPGRO, vnetHdr').disableOffloads, ['udpGro', 'vnetHdr']);
    assert.deepEqual(options('--disable-offloads=all').disableOffloads, OFFLOADS);
  });
});

describe('describeOptions', () => {
  it('shows every flag and no secret', () => {
    const shown = describeOptions(
      options(
        '--etcd-password=hunter2',
        '--etcd-endpoints=http://192.0.2.1:2379,http://192.0.2.2:2379',
        '--iface=a',
        '--iface=b',
      ),
    );
    assert.deepEqual(Object.keys(shown), Object.keys(FLAGS));
    assert.doesNotMatch(JSON.stringify(shown), /hunter2/);
    assert.equal(shown['etcd-password'], '***');
    assert.equal(shown['etcd-endpoints'], 'http://192.0.2.1:2379,http://192.0.2.2:2379');
    assert.equal(shown.iface, 'a,b');
    assert.equal(shown['public-ip'], '');
    assert.equal(describeOptions(options())['etcd-password'], '');
  });

  it('gives texts that can be read back to the same options', () => {
    const before = options(
      '--iface=eth0',
      '--public-ip=192.0.2.1',
      '--disable-offloads=tso,uso',
      '--healthz-port=8080',
      '--ip-masq',
    );
    const argv = Object.entries(describeOptions(before)).map(([name, text]) => `--${name}=${text}`);
    assert.deepEqual(options(...argv), before);
  });

  it('masks whatever the password is', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 8 }), (secret) => {
        const shown = describeOptions(options(`--etcd-password=${secret}`));
        assert.equal(shown['etcd-password'], '***');
      }),
    );
  });
});

describe('formatHelp', () => {
  it('fits the width and names every flag with its default', () => {
    for (const width of [60, 80, 120]) {
      const text = formatHelp({ program: 'tsflanneld', width });
      const tooLong = text.split('\n').filter((line) => line.length > width);
      // Only a word that cannot be broken may stick out.
      assert.deepEqual(
        tooLong.filter((line) => line.trim().includes(' ')),
        [],
      );
      for (const name of Object.keys(FLAGS)) assert.match(text, new RegExp(`^  --${name}(?: |$)`, 'm'));
      assert.match(text.replaceAll(/\s+/g, ' '), /--subnet-lease-renew-margin MINUTES .* \[60\]/);
      assert.ok(text.startsWith('Usage: tsflanneld [OPTION]...\n'));
    }
  });
});
