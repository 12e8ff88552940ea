import { OverlayError, describeError } from '../errors.js';
import { IpAddress } from '../ip/address.js';
import { LOG_LEVELS, type LogLevel } from '../log-level.js';
import { maskCredentials } from '../printable.js';
import { CREDENTIALS_HINT, hasCredentials } from './endpoint.js';
import {
  type Flag,
  type FlagGroup,
  type FlagValue,
  UnfitValue,
  addressFlag,
  choiceFlag,
  intFlag,
  listFlag,
  masked,
  optionalTextFlag,
  repeatableFlag,
  secretFlag,
  setFlagValue,
  switchFlag,
  textFlag,
} from './flag-values.js';
import { parseGoBool, scanArguments, shownWord } from './go-flags.js';
import { DEFAULT_PATHS } from './paths.js';
import { compileRe2 } from './re2.js';
import { mostSimilar } from './similar.js';

/**
 * Offloads that `--disable-offloads` can name.
 *
 * @remarks The same words as `OFFLOADS` of the data plane, which configuration must not import; a test compares them.
 */
export const OFFLOAD_NAMES = [
  ...(['vnetHdr', 'tso', 'uso', 'udpSegment', 'udpGro', 'tcpMerge', 'udpMerge', 'batch'] as const),
] as const;

/** One of {@link OFFLOAD_NAMES}. */
export type OffloadName = (typeof OFFLOAD_NAMES)[number];

/** Highest valid port. */
const MAX_PORT = 65535;

/** A day in minutes, less one: the lease lives for 24 h, and flannel allows 1…1439 before its end. */
const MAX_RENEW_MARGIN = 1439;

/** Far more threads than one UDP port can feed; the addon takes no more. */
export const MAX_UDP_WORKERS = 64;

/** Seconds in a year. */
const MAX_CONTAINER_TTL = 31_536_000;

/** Seconds in a day; a longer pause between two checks is no check. */
const MAX_RESYNC_SECONDS = 86_400;

/**
 * Where an earlier version kept what belongs to a state directory.
 *
 * @returns undefined for a directory that an operator has named: that one was used before, too.
 */
export function formerStateDirectory(stateDir: string): string | undefined {
  return stateDir === DEFAULT_PATHS.stateDirectory ? DEFAULT_PATHS.formerStateDirectory : undefined;
}

/** Every flag of the daemon. The options that come out have these names in camel case. */
export const FLAGS = {
  'etcd-endpoints': masked(
    listFlag<string>(['http://127.0.0.1:4001', 'http://127.0.0.1:2379'], checkEndpoint, {
      group: 'store',
      help: 'Where etcd listens, separated by commas: http://, https://, unix:// or unixs://.',
    }),
  ),
  'etcd-prefix': textFlag('/coreos.com/network', {
    group: 'store',
    placeholder: 'PREFIX',
    help: 'Where the network lives in etcd: PREFIX/config and PREFIX/subnets.',
  }),
  'etcd-keyfile': optionalTextFlag({
    group: 'store',
    placeholder: 'FILE',
    help: 'Private key of this client (PEM); needs --etcd-certfile.',
  }),
  'etcd-certfile': optionalTextFlag({
    group: 'store',
    placeholder: 'FILE',
    help: 'Certificate of this client (PEM); needs --etcd-keyfile.',
  }),
  'etcd-cafile': optionalTextFlag({
    group: 'store',
    placeholder: 'FILE',
    help: 'Certificates of those that may vouch for the servers (PEM).',
  }),
  'etcd-username': optionalTextFlag({
    group: 'store',
    placeholder: 'NAME',
    help: 'User for etcd; needs a password.',
  }),
  'etcd-password': secretFlag({
    group: 'store',
    placeholder: 'SECRET',
    help: 'Password for etcd. Better in a file: everybody on this host can read command lines.',
  }),
  'etcd-password-file': optionalTextFlag({
    group: 'store',
    placeholder: 'FILE',
    help: 'File with the password for etcd, which only its owner and group may read.',
  }),

  iface: repeatableFlag({
    group: 'underlay',
    placeholder: 'NAME|ADDRESS',
    help: 'Interface by name, or by an address on it. Can be repeated; the first that fits is taken.',
  }),
  'iface-regex': repeatableFlag(
    {
      group: 'underlay',
      placeholder: 'PATTERN',
      help: 'Interface whose address or else name matches. Can be repeated; tried in order after --iface.',
    },
    checkPattern,
  ),
  'iface-can-reach': addressFlag([4, 6], {
    group: 'underlay',
    help: 'Interface that packets to this address leave through; tried last. Without any of these three: the interface that carries --public-ip, else that of the default route.',
  }),
  'public-ip': addressFlag([4], {
    group: 'underlay',
    help: 'IPv4 address that other hosts send to, if it is not the one on the interface (NAT).',
  }),
  'public-ipv6': addressFlag([6], {
    group: 'underlay',
    help: 'IPv6 address that other hosts send to, if it is not the one on the interface.',
  }),

  'subnet-file': textFlag(DEFAULT_PATHS.subnetFile, {
    group: 'files',
    placeholder: 'FILE',
    help: 'Where subnet, MTU and masquerading are written for Docker and CNI.',
  }),
  'state-dir': textFlag(DEFAULT_PATHS.stateDirectory, {
    group: 'files',
    placeholder: 'DIRECTORY',
    help: 'Where the last known lease, configuration and peers are kept, for a start without etcd. One per daemon.',
  }),
  'status-socket': textFlag(DEFAULT_PATHS.statusSocket, {
    group: 'files',
    placeholder: 'FILE',
    help: 'Unix socket that tsflannelctl asks. One per daemon.',
  }),

  'subnet-lease-renew-margin': intFlag(
    60,
    { min: 1, max: MAX_RENEW_MARGIN },
    { group: 'lease', placeholder: 'MINUTES', help: 'How long before its end the lease is renewed at the latest.' },
  ),

  'docker-plugin': switchFlag(false, {
    group: 'containers',
    help: 'Serve networks for Docker, with addresses that are unique in the cluster. On where systemd opens the socket.',
  }),
  'container-address-ttl': intFlag(
    86_400,
    { min: 60, max: MAX_CONTAINER_TTL },
    {
      group: 'containers',
      placeholder: 'SECONDS',
      help: 'How long addresses of containers are kept for this host while it is away.',
    },
  ),
  'host-id': optionalTextFlag({
    group: 'containers',
    help: 'What stands for this host in etcd; without it a digest of machine id and firmware. No other host may have the same.',
  }),

  'ip-masq': switchFlag(false, { group: 'rules', help: 'Masquerade what leaves the overlay.' }),
  'ip-masq-fully-random-disable': switchFlag(false, {
    group: 'rules',
    help: 'Do not choose the ports of masqueraded flows at random.',
  }),
  'iptables-forward-rules': switchFlag(true, { group: 'rules', help: 'Accept forwarded packets of the overlay.' }),
  'iptables-resync': intFlag(
    5,
    { min: 1, max: MAX_RESYNC_SECONDS },
    { group: 'rules', placeholder: 'SECONDS', help: 'Time between two checks of the rules and the blackhole route.' },
  ),
  'ndp-proxy': switchFlag(false, {
    group: 'rules',
    help: "Answer neighbour solicitations on the host's interface for containers on bridges whose IPv6 subnet is a part of its on-link prefix.",
  }),
  'ip-blackhole-route': switchFlag(false, {
    group: 'rules',
    help: 'Keep a blackhole route for the own subnet, so that packets for absent containers do not loop.',
  }),

  datapath: choiceFlag(['auto', 'kernel', 'native', 'portable'], 'auto', {
    group: 'datapath',
    help: 'native: C++ threads; kernel: programs in the kernel between hosts that have them, and threads for the rest; auto: those programs for all but bulk; portable: plain Node, slow, and what auto falls back to.',
  }),
  'udp-workers': intFlag(
    0,
    { min: 0, max: MAX_UDP_WORKERS },
    { group: 'datapath', help: 'Threads that carry packets; 0 chooses by the number of CPUs.' },
  ),
  'disable-offloads': listFlag<OffloadName>([], readOffload, {
    group: 'datapath',
    help: `Kernel features not to use: ${OFFLOAD_NAMES.join(', ')}, or all.`,
  }),

  'allow-extension-commands': switchFlag(false, {
    group: 'extension',
    help: 'Run the commands of backend extension: whoever may write PREFIX/config in etcd can then do anything on this host.',
  }),
  'healthz-ip': textFlag('0.0.0.0', {
    group: 'observe',
    placeholder: 'ADDRESS',
    help: 'Address for /healthz, /readyz, /metrics and /status.',
  }),
  'healthz-port': intFlag(
    0,
    { min: 0, max: MAX_PORT },
    { group: 'observe', placeholder: 'PORT', help: 'Port for these; 0 = none.' },
  ),
  'healthz-allowed-hosts': listFlag<string>([], readHostName, {
    group: 'observe',
    help: 'Host names that requests there may be addressed to, besides addresses, localhost and the own host name.',
  }),
  'peer-probe-interval': intFlag(
    30,
    { min: 0, max: 3600 },
    {
      group: 'observe',
      placeholder: 'SECONDS',
      help: 'Time between two echoes to the same peer through the overlay; 0 = none. At most 100 a second in all.',
    },
  ),
  'log-format': choiceFlag(['text', 'json'], 'text', { group: 'observe', help: 'Lines for people or for collectors.' }),
  'log-level': choiceFlag(LOG_LEVELS, 'info', {
    group: 'observe',
    help: 'The least severe lines that are written; tsflannelctl log-level changes it at run time.',
  }),
  v: intFlag(
    0,
    { min: 0, max: 100 },
    { group: 'observe', placeholder: 'LEVEL', help: "flannel's flag: 1 and more is --log-level=debug." },
  ),
  version: switchFlag(false, { group: 'observe', help: 'Print the version and stop.' }),

  'kube-subnet-mgr': switchFlag(false, {
    group: 'unused',
    help: 'Subnets from the Kubernetes API instead of etcd: not supported, refused if true.',
  }),
  'kube-api-url': masked(
    optionalTextFlag({ group: 'unused', placeholder: 'URL', help: 'Address of the Kubernetes API.' }),
  ),
  'kube-annotation-prefix': textFlag('flannel.alpha.coreos.com', {
    group: 'unused',
    help: 'Prefix of node annotations.',
  }),
  'kubeconfig-file': optionalTextFlag({ group: 'unused', placeholder: 'FILE', help: 'Access to the Kubernetes API.' }),
  'net-config-path': textFlag('/etc/kube-flannel/net-conf.json', {
    group: 'unused',
    placeholder: 'FILE',
    help: 'Network configuration for Kubernetes.',
  }),
  'set-node-network-unavailable': switchFlag(true, { group: 'unused', help: 'Condition of the Kubernetes node.' }),
  vmodule: optionalTextFlag({ group: 'unused', help: 'Level of log by source file.' }),
  log_backtrace_at: optionalTextFlag({ group: 'unused', help: 'Stack trace at a line of source.' }),
} as const satisfies Readonly<Record<string, Flag<FlagValue>>>;

/** Name of a flag without dashes. */
export type FlagName = keyof typeof FLAGS;

type CamelCase<Text extends string> = Text extends `${infer Head}${'-' | '_'}${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : Text;

/** The values of all flags under their names in camel case, after command line, environment and defaults. */
export type DaemonOptions = {
  readonly [Name in FlagName as CamelCase<Name>]: (typeof FLAGS)[Name] extends Flag<infer T> ? T : never;
};

/** What the command line asks for. */
export type CommandLine =
  | { readonly kind: 'help' }
  | { readonly kind: 'version' }
  | {
      readonly kind: 'run';
      readonly options: DaemonOptions;
      /** Flags that were set, on the command line or by a variable. */
      readonly given: ReadonlySet<string>;
      /** Settings that have no effect, as *what: why*; one log line each. */
      readonly warnings: readonly string[];
    };

/** A flag's variable in the environment: `FLANNELD_ETCD_ENDPOINTS` for `etcd-endpoints`. */
export function environmentName(flag: string): string {
  return `FLANNELD_${flag.toUpperCase().replaceAll(/[-.]/g, '_')}`;
}

/**
 * Reads command line and environment. The command line beats the environment, which beats the default; an empty
 * variable counts as unset.
 *
 * @remarks Where flannel goes on with something else than was asked for, this is an error: unknown flags, left-over
 * words, variables with an impossible value.
 * @throws {@link OverlayError} `ERR_FLAG`; the process should end with 2.
 */
export function parseCommandLine(
  argv: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): CommandLine {
  const scanned = scanArguments(argv, (name) => (flagNamed(name).placeholder === undefined ? 'switch' : 'value'));
  const values = new Map<string, FlagValue>();
  for (const { name, value } of scanned.settings) {
    setFlagValue(values, { name, flag: flagNamed(name), text: value, source: `--${name}` });
  }
  if (scanned.isHelpWanted) return { kind: 'help' };
  // Before the environment, so that FLANNELD_VERSION never stops the daemon.
  if (values.get('version') === true) return { kind: 'version' };
  refuseRest(scanned.rest, scanned.settings.at(-1)?.name);

  const given = new Set(values.keys());
  for (const name of Object.keys(FLAGS)) {
    const text = environment[environmentName(name)];
    if (given.has(name) || name === 'version' || text === undefined || text === '') continue;
    setFlagValue(values, { name, flag: flagNamed(name), text, source: environmentName(name) });
    given.add(name);
  }
  const all = Object.entries<Flag<FlagValue>>(FLAGS).map(([name, flag]) => {
    return [camelCase(name), values.has(name) ? values.get(name) : flag.initial] as const;
  });
  // Every value came from the flag of that name.
  const options = Object.fromEntries(all) as DaemonOptions;
  refuseKubernetes(options);
  return { kind: 'run', options, given, warnings: [...warningsFor(options, given), ...strangeVariables(environment)] };
}

/** The least severe level that `--log-level` and `--v` ask for. */
export function logLevelOf(options: Pick<DaemonOptions, 'logLevel' | 'v'>): LogLevel {
  return options.v > 0 ? 'debug' : options.logLevel;
}

/** The value that a flag has among the options. */
export function optionOf(options: DaemonOptions, name: FlagName): FlagValue {
  return (options as Readonly<Record<string, FlagValue>>)[camelCase(name)];
}

/** All options by flag name as text, for a log line or a status page; secrets are masked. */
export function describeOptions(options: DaemonOptions): Readonly<Record<FlagName, string>> {
  const texts = Object.entries<Flag<FlagValue>>(FLAGS).map(([name, flag]) => {
    return [name, flag.show(textOf(optionOf(options, name as FlagName)))] as const;
  });
  return Object.fromEntries(texts) as Record<FlagName, string>;
}

/** Any flag's value as it would be written on the command line; empty for none. */
export function textOf(value: FlagValue): string {
  if (value === undefined) return '';
  return typeof value === 'object' && !(value instanceof IpAddress) ? value.join(',') : String(value);
}

function camelCase(name: string): string {
  return name.replaceAll(/[-_](\w)/g, (_, letter: string) => letter.toUpperCase());
}

/** @throws {@link OverlayError} `ERR_FLAG`, with what to do instead where the name is known from elsewhere. */
function flagNamed(name: string): Flag<FlagValue> {
  if (Object.hasOwn(FLAGS, name)) return FLAGS[name as FlagName];
  const replacement = REMOVED_FLAGS.get(name);
  if (replacement !== undefined) {
    throw new OverlayError('ERR_FLAG', `cannot use --${name}: flannel gave it up`, { hint: replacement });
  }
  const similar = mostSimilar(name, Object.keys(FLAGS));
  throw new OverlayError('ERR_FLAG', `cannot use --${shownWord(name)}: there is no such flag`, {
    hint: similar === undefined ? 'see --help' : `did you mean --${similar}? See --help`,
  });
}

const NO_CLIENT_MODE = 'remove it and let every host reach etcd with --etcd-endpoints';
const ONE_DAEMON_PER_NETWORK =
  'run one daemon per network, each with its own --etcd-prefix, --subnet-file, --state-dir and --status-socket';
const ONLY_STDERR = 'remove it; the log always goes to standard error';

/** Flags of flannel 0.1 … 0.22 that it no longer has, and what to do instead. */
const REMOVED_FLAGS: ReadonlyMap<string, string> = new Map([
  ['etcd-endpoint', 'use --etcd-endpoints'],
  ...['listen', 'remote', 'remote-keyfile', 'remote-certfile', 'remote-cafile'].map(
    (name) => [name, NO_CLIENT_MODE] as const,
  ),
  ...['networks', 'watch-networks', 'subnet-dir'].map((name) => [name, ONE_DAEMON_PER_NETWORK] as const),
  ['use-multi-cluster-cidr', 'remove it; Kubernetes is not supported'],
  ...['logtostderr', 'alsologtostderr', 'stderrthreshold', 'log_dir'].map((name) => [name, ONLY_STDERR] as const),
]);

function refuseRest(rest: readonly string[], lastFlag: string | undefined): void {
  const [word] = rest;
  if (word === undefined) return;
  const isSwitchValue =
    lastFlag !== undefined && flagNamed(lastFlag).placeholder === undefined && parseGoBool(word) !== undefined;
  // Perhaps the rest of a password with a blank in it.
  const shown = lastFlag !== undefined && flagNamed(lastFlag).isSecret ? '***' : shownWord(word);
  throw new OverlayError('ERR_FLAG', `cannot use the word "${shown}": it belongs to no flag`, {
    hint: isSwitchValue ? `write --${lastFlag}=${word}` : 'remove it; it and all flags behind it would be ignored',
  });
}

function refuseKubernetes(options: DaemonOptions): void {
  if (!options.kubeSubnetMgr) return;
  throw new OverlayError('ERR_FLAG', 'cannot use --kube-subnet-mgr: only etcd is supported as the store', {
    hint: 'leave it out and give --etcd-endpoints',
  });
}

function warningsFor(options: DaemonOptions, given: ReadonlySet<string>): readonly string[] {
  const kube = ['kube-api-url', 'kube-annotation-prefix', 'kubeconfig-file', 'net-config-path'];
  const unused = [...kube, 'set-node-network-unavailable'].filter((name) => given.has(name));
  const klog = ['vmodule', 'log_backtrace_at'].filter((name) => given.has(name));
  const list = (names: readonly string[]): string => names.map((name) => `--${name}`).join(', ');
  const rules: readonly (readonly [boolean, string])[] = [
    [unused.length > 0, `${list(unused)}: without effect, as only etcd is supported`],
    [klog.length > 0, `${list(klog)}: without effect; use --log-level=debug to see decisions`],
    [
      given.has('log-level') && options.v > 0 && options.logLevel !== 'debug',
      '--log-level: without effect, as --v asks for debug',
    ],
    [
      (options.etcdKeyfile === undefined) !== (options.etcdCertfile === undefined),
      '--etcd-keyfile, --etcd-certfile: without effect, as one of the two is missing',
    ],
    [
      (options.etcdUsername === undefined) !== ((options.etcdPassword ?? options.etcdPasswordFile) === undefined),
      '--etcd-username, --etcd-password: without effect, as one of the two is missing',
    ],
    [
      options.etcdPassword !== undefined && options.etcdPasswordFile !== undefined,
      '--etcd-password-file: without effect, as --etcd-password is given',
    ],
  ];
  return rules.filter(([applies]) => applies).map(([, text]) => text);
}

function strangeVariables(environment: Readonly<Record<string, string | undefined>>): readonly string[] {
  const known = new Set(Object.keys(FLAGS).map(environmentName));
  return Object.keys(environment)
    .filter((name) => name.startsWith('FLANNELD_') && !known.has(name))
    .map((name) => `${name}: without effect, as no flag has this variable`);
}

function checkEndpoint(text: string): string {
  if (hasCredentials(text)) throw new UnfitValue('it names a user or a password', CREDENTIALS_HINT);
  const scheme = /^([^:/]*):\/\//.exec(text)?.[1];
  const isKnown = scheme === undefined || ['http', 'https', 'unix', 'unixs'].includes(scheme);
  const isUrl = scheme?.startsWith('http') === true ? URL.canParse(text) : !/\s/.test(text);
  if (isKnown && isUrl) return text;
  throw new UnfitValue(`"${maskCredentials(text)}" is not an endpoint`, 'use the form http://192.0.2.1:2379');
}

function readHostName(text: string): string {
  if (/^[\w-]+(?:\.[\w-]+)*$/.test(text)) return text;
  throw new UnfitValue('it holds something else than host names', 'use the form node1.example.org, without a port');
}

function checkPattern(text: string): void {
  try {
    compileRe2(text);
  } catch (error) {
    throw new UnfitValue(describeError(error), 'use a regular expression');
  }
}

function readOffload(text: string): readonly OffloadName[] {
  if (text === 'all') return OFFLOAD_NAMES;
  const name = OFFLOAD_NAMES.find((offload) => offload.toLowerCase() === text.toLowerCase());
  if (name === undefined)
    throw new UnfitValue(`there is no offload "${text}"`, `use ${OFFLOAD_NAMES.join(', ')} or all`);
  return [name];
}

/** Flags of one heading of the help text, in the order of the table. @internal */
export function flagsOf(group: FlagGroup): readonly (readonly [FlagName, Flag<FlagValue>])[] {
  const entries = Object.entries<Flag<FlagValue>>(FLAGS) as [FlagName, Flag<FlagValue>][];
  return entries.filter(([, flag]) => flag.group === group);
}
