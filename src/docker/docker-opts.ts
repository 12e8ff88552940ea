import { DEFAULT_PATHS } from '../config/paths.js';
import { Prefix } from '../ip/prefix.js';
import { OverlayError } from '../errors.js';
import { cut } from '../printable.js';
import { parseEnvFile } from './env-file.js';

/** What `mk-docker-opts` is asked for. */
export interface DockerOptsRequest {
  /** `-f`: the file that flanneld wrote. */
  readonly flannelEnvFile: string;
  /** Whether `-f` was given: then the file has to be there. */
  readonly isFileNamed: boolean;
  /** `-d`: the file for Docker's unit. */
  readonly dockerEnvFile: string;
  /** `-i`: one variable per option. */
  readonly isIndividual: boolean;
  /** `-c`: one variable with all options. */
  readonly isCombined: boolean;
  /** Without `-m`: whether `--ip-masq` is given. */
  readonly hasMasquerade: boolean;
  /** `-k`: name of the combined variable. */
  readonly combinedKey: string;
}

/** Flannel's script takes an empty name, too. */
const VARIABLE_NAME = /^(?:[A-Za-z_]\w*)?$/;

/** What ends a quoted value, or makes a shell or systemd put something else in its place. */
const NOT_LITERAL = /["\\$`\p{Cc}]/u;

/** Text for `-h`, `-?` and for everything that cannot be read. */
export function dockerOptsUsage(program: string): string {
  return `${program} [-f FLANNEL-ENV-FILE] [-d DOCKER-ENV-FILE] [-i] [-c] [-m] [-k COMBINED-KEY]

Turns what flannel found out into options for the Docker daemon.
  -f  file that flannel wrote, which must be there if it is named [${DEFAULT_PATHS.subnetFile}]
  -d  file to write for Docker [${DEFAULT_PATHS.dockerOptions}]
  -i  one variable per option, such as DOCKER_OPT_MTU
  -c  one variable with all options; neither -i nor -c means both
  -k  name of that variable [DOCKER_OPTS]
  -m  leave out --ip-masq
`;
}

/**
 * Reads the command line as `getopts "f:d:icmk:?h"` of a shell does; words after the options are ignored.
 *
 * @returns undefined when the usage is to be shown.
 */
export function parseDockerOptsArguments(argv: readonly string[]): DockerOptsRequest | undefined {
  const texts = new Map<string, string>();
  const switches = new Set<string>();
  const words = [...argv];
  for (
    let word = words.shift();
    word?.startsWith('-') === true && word !== '-' && word !== '--';
    word = words.shift()
  ) {
    for (let at = 1; at < word.length; at++) {
      const letter = word.charAt(at);
      if ('icm'.includes(letter)) {
        switches.add(letter);
        continue;
      }
      const value = word.slice(at + 1) || words.shift();
      if (!'fdk'.includes(letter) || value === undefined) return undefined;
      texts.set(letter, value);
      break;
    }
  }
  const combinedKey = texts.get('k') ?? 'DOCKER_OPTS';
  if (!VARIABLE_NAME.test(combinedKey)) return undefined;
  const isBoth = !switches.has('i') && !switches.has('c');
  return {
    flannelEnvFile: texts.get('f') ?? DEFAULT_PATHS.subnetFile,
    isFileNamed: texts.has('f'),
    dockerEnvFile: texts.get('d') ?? DEFAULT_PATHS.dockerOptions,
    isIndividual: isBoth || switches.has('i'),
    isCombined: isBoth || switches.has('c'),
    hasMasquerade: !switches.has('m'),
    combinedKey,
  };
}

/**
 * The text of Docker's environment file, byte for byte as flannel's script writes it, with its leading blank and the
 * two blanks after a value that was there before. Where the host has an IPv6 subnet, of which flannel's script knows
 * nothing, Docker's bridge gets it as well.
 *
 * @param flannelEnv - text of subnet.env, empty if there is none.
 * @param environment - of this process: `DOCKER_OPT_*` and a former combined value are taken over from it.
 * @param taken - options of IPv6 that Docker has elsewhere: it does not start with one in two places.
 * @throws {@link OverlayError} `ERR_SUBNET_FILE` if a value is not what it stands for, or would be more than a text to
 * a shell that sources the result: root does.
 * @see flannel `dist/mk-docker-opts.sh`
 */
export function formatDockerOpts(
  request: Pick<DockerOptsRequest, 'isIndividual' | 'isCombined' | 'hasMasquerade' | 'combinedKey'>,
  flannelEnv: string,
  environment: Readonly<Record<string, string | undefined>>,
  taken: ReadonlySet<string> = new Set(),
): string {
  // The script sources the file, so its lines go over what the environment says.
  const variables = new Map([...Object.entries(environment), ...parseEnvFile(flannelEnv)]);
  const options = new Map([...variables].filter(([name]) => name.startsWith('DOCKER_OPT_')));
  for (const [name, value] of options) refuseUnlessLiteral(name, value);
  const set = (name: string, option: string, value: string | undefined): void => {
    if (value !== undefined && value !== '') options.set(`DOCKER_OPT_${name}`, `--${option}=${value}`);
  };
  set('BIP', 'bip', fit('FLANNEL_SUBNET', variables, isSubnet, 'a network such as 10.5.3.1/24'));
  const ipv6 = fit('FLANNEL_IPV6_SUBNET', variables, isIpv6Subnet, 'a network such as 2001:db8:0:1::1/64');
  if (ipv6 !== undefined) {
    if (!taken.has('ipv6')) set('IPV6', 'ipv6', 'true');
    if (!taken.has('fixed-cidr-v6')) set('FIXED_CIDR_V6', 'fixed-cidr-v6', Prefix.parse(ipv6).toString());
  }
  set('MTU', 'mtu', fit('FLANNEL_MTU', variables, isMtu, 'a number of bytes'));
  if (request.hasMasquerade) set('IPMASQ', 'ip-masq', negated(variables.get('FLANNEL_IPMASQ')));

  const sorted = [...options].sort(([left], [right]) => (left < right ? -1 : 1));
  const former = variables.get(request.combinedKey) ?? '';
  refuseUnlessLiteral(request.combinedKey, former);
  const combined = [former === '' ? '' : `${former} `, ...sorted.map(([, option = '']) => ` ${option}`)].join('');
  return [
    ...(request.isIndividual ? sorted.map(([name, option = '']) => `${name}="${option}"\n`) : []),
    ...(request.isCombined ? [`${request.combinedKey}="${combined}"\n`] : []),
  ].join('');
}

/** A variable of the subnet file, undefined if it is missing or empty. */
function fit(
  name: string,
  variables: ReadonlyMap<string, string | undefined>,
  isFit: (text: string) => boolean,
  wanted: string,
): string | undefined {
  const text = variables.get(name) ?? '';
  if (text === '') return undefined;
  if (isFit(text)) return text;
  throw new OverlayError('ERR_SUBNET_FILE', `cannot use ${name} "${cut(text)}": it is not ${wanted}`, {
    hint: 'let tsflanneld write the file again: systemctl restart tsflanneld',
  });
}

function isSubnet(text: string): boolean {
  return /^[0-9.]+\/\d{1,2}$/.test(text) && Prefix.tryParse(text)?.family === 4;
}

function isIpv6Subnet(text: string): boolean {
  return Prefix.tryParse(text)?.family === 6;
}

function isMtu(text: string): boolean {
  return /^\d{1,5}$/.test(text);
}

function refuseUnlessLiteral(name: string, value = ''): void {
  if (VARIABLE_NAME.test(name) && !NOT_LITERAL.test(value)) return;
  throw new OverlayError('ERR_SUBNET_FILE', `cannot use ${name} "${cut(value)}": it is more than a text to a shell`, {
    hint: 'remove quotes, backslashes, dollar signs, backquotes and control characters',
  });
}

/** Docker must masquerade exactly if flannel does not. */
function negated(isMasquerading: string | undefined): string | undefined {
  if (isMasquerading === undefined || isMasquerading === '') return undefined;
  if (isMasquerading === 'true') return 'false';
  if (isMasquerading === 'false') return 'true';
  throw new OverlayError(
    'ERR_SUBNET_FILE',
    `cannot use FLANNEL_IPMASQ "${cut(isMasquerading)}": it is no truth value`,
    {
      hint: 'set it to true or false',
    },
  );
}

/**
 * Whether the own subnet is routed through a gateway: then a route from elsewhere (such as a cloud's) takes the packets
 * that Docker's bridge should get.
 *
 * @param subnet - FLANNEL_SUBNET, the bridge's address.
 * @param routes - text of `/proc/net/route`, which is the main table of IPv4.
 */
export function isRoutedVia(subnet: string, routes: string): boolean {
  const wanted = Prefix.tryParse(subnet);
  if (wanted?.family !== 4) return false;
  return routes.split('\n').some((line) => {
    const [, destination = '', gateway = '', , , , , mask = ''] = line.split('\t');
    return (
      fromProc(destination) === wanted.address.value &&
      fromProc(mask) === maskOf(wanted.length) &&
      (fromProc(gateway) ?? 0n) !== 0n
    );
  });
}

function maskOf(length: number): bigint {
  return BigInt.asUintN(32, -1n << BigInt(32 - length));
}

/** An address in `/proc/net/route`: the four bytes in network order, printed as one number of this machine. */
function fromProc(hex: string): bigint | undefined {
  if (!/^[0-9A-F]{8}$/.test(hex)) return undefined;
  const bytes = new Uint8Array(Uint32Array.of(Number.parseInt(hex, 16)).buffer);
  return bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
}
