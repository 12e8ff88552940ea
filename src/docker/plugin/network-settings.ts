import { OverlayError } from '../../errors.js';
import { isDeviceName } from '../../netlink/device-name.js';
import { oneLine } from '../../printable.js';
import type { NetworkSettings, NetworkTypeName } from './network.js';
import type { OptionName } from './network-type.js';
import { NETWORK_TYPES, networkType } from './network-types.js';

/** What an operator says of where a network lies. */
export interface RequestedParent {
  /** Undefined: the interface with an address in the subnet, else the daemon's. */
  readonly name: string | undefined;
  /** 1…4094; undefined: that of the interface, if it has one. */
  readonly vlanId: number | undefined;
}

/** Reads the value of one option; throws what has to be written instead. */
type Reader<Value> = (text: string) => Value;

/** 1280 carries IPv6 (RFC 8200 5), 68 IPv4 (RFC 791); 65535 is the largest IP packet. */
const MTU = { min: 68, max: 65_535 } as const;

/** IEEE 802.1Q 9.6: 0 means no VLAN, 4095 is reserved. */
export const VLAN_ID = { min: 1, max: 4094 } as const;

const BOOLEAN = oneOf('true', 'false');

const READERS = {
  type: (text: string) => oneOf(...NETWORK_TYPES)(text),
  parent: (text: string) => {
    if (!isDeviceName(text)) throw new TypeError('the name of an interface, or auto');
    return text === 'auto' ? undefined : text;
  },
  vlan: numberFrom(VLAN_ID),
  // Which ones there are of these, the type says.
  mode: (text: string) => text,
  flag: (text: string) => text,
  address: oneOf('subnet', 'host'),
  mtu: numberFrom(MTU),
  'host-access': BOOLEAN,
  probe: oneOf('on', 'off'),
  icc: BOOLEAN,
  'ipv6-firewall': oneOf('closed', 'open'),
  'ndp-proxy': BOOLEAN,
} as const satisfies Readonly<Record<OptionName | 'type', Reader<unknown>>>;

/** Options that Docker itself knows under another name. */
const ALIASES: Readonly<Record<string, OptionName>> = {
  'com.docker.network.driver.mtu': 'mtu',
  'com.docker.network.bridge.enable_icc': 'icc',
  macvlan_mode: 'mode',
  ipvlan_mode: 'mode',
  ipvlan_flag: 'flag',
};

/** What settings are written as; where a network lies is kept beside them. */
const WRITERS: Readonly<
  Record<Exclude<OptionName, 'parent' | 'vlan'> | 'type', (settings: NetworkSettings) => string | undefined>
> = {
  type: ({ type }) => type,
  mode: ({ mode }) => mode,
  flag: ({ flag }) => flag,
  address: ({ addressing }) => addressing,
  mtu: ({ mtu }) => mtu?.toString(),
  'host-access': ({ hasHostAccess }) => String(hasHostAccess),
  probe: ({ isProbed }) => (isProbed ? 'on' : 'off'),
  icc: ({ isIccAllowed }) => String(isIccAllowed),
  'ipv6-firewall': ({ ipv6Firewall }) => ipv6Firewall,
  'ndp-proxy': ({ hasNdpProxy }) => String(hasNdpProxy),
};

/**
 * Reads the options of `docker network create`.
 *
 * @throws {@link OverlayError} `ERR_CONTAINER_NETWORK` for one that there is not, or a value that it cannot have.
 */
export function readSettings(options: Readonly<Record<string, string>>): {
  readonly settings: NetworkSettings;
  readonly parent: RequestedParent;
} {
  const given = new Map<OptionName | 'type', string>();
  for (const [name, text] of Object.entries(options)) given.set(optionNamed(name), text);
  const value = <N extends OptionName | 'type'>(name: N): ReturnType<(typeof READERS)[N]> | undefined => {
    const text = given.get(name);
    return text === undefined ? undefined : (read(name, text) as ReturnType<(typeof READERS)[N]>);
  };
  const type = value('type') ?? NETWORK_TYPES[0] ?? 'macvlan';
  const { options: own, modes, flags, addressings } = networkType(type);
  for (const name of given.keys()) if (name !== 'type' && !own.includes(name)) throw notOf(type, name);
  const choice = <T extends string>(name: 'mode' | 'flag' | 'address', choices: readonly T[]): T | undefined => {
    const text = value(name) ?? choices[0];
    if (text === undefined) return undefined;
    const found = choices.find((each) => each === text);
    if (found === undefined) throw refused(name, text, `one of ${choices.join(', ')}`);
    return found;
  };
  return {
    settings: {
      type,
      mode: choice('mode', modes) ?? '',
      flag: choice('flag', flags) ?? '',
      addressing: choice('address', addressings) ?? 'subnet',
      mtu: value('mtu'),
      hasHostAccess: value('host-access') === 'true',
      isProbed: own.includes('probe') && value('probe') !== 'off',
      isIccAllowed: value('icc') !== 'false',
      ipv6Firewall: value('ipv6-firewall') ?? 'closed',
      hasNdpProxy: value('ndp-proxy') === 'true',
    },
    parent: { name: value('parent'), vlanId: value('vlan') },
  };
}

/** The options by which {@link readSettings} gives the same settings. */
export function optionsOf(settings: NetworkSettings): Readonly<Record<string, string>> {
  const { options } = networkType(settings.type);
  const written: Record<string, string> = {};
  for (const [name, write] of Object.entries(WRITERS)) {
    const text = name === 'type' || options.some((each) => each === name) ? write(settings) : undefined;
    if (text !== undefined) written[name] = text;
  }
  return written;
}

/**
 * The options by which a host enters a network that others have written down.
 *
 * @param properties - of its record; those that are no options are left out.
 */
export function optionsOfRecord(properties: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const options: Record<string, string> = {};
  for (const [name, text] of Object.entries(properties)) if (Object.hasOwn(READERS, name)) options[name] = text;
  return options;
}

function optionNamed(name: string): OptionName | 'type' {
  if (Object.hasOwn(READERS, name)) return name as OptionName | 'type';
  const alias = Object.hasOwn(ALIASES, name) ? ALIASES[name] : undefined;
  if (alias !== undefined) return alias;
  throw new OverlayError('ERR_CONTAINER_NETWORK', `cannot use -o ${oneLine(name, 100)}: there is no such option`, {
    hint: `those that there are: ${Object.keys(READERS).join(', ')}`,
  });
}

function notOf(type: NetworkTypeName, name: OptionName): OverlayError {
  const others = NETWORK_TYPES.filter((each) => networkType(each).options.includes(name));
  return new OverlayError(
    'ERR_CONTAINER_NETWORK',
    `cannot use -o ${name}: networks of type ${type} have no such option`,
    {
      hint: `leave it out${others.length === 0 ? '' : `, or use -o type=${others.join(' or ')}`}; those of ${type}: ${networkType(type).options.join(', ')}`,
    },
  );
}

function read(name: OptionName | 'type', text: string): unknown {
  try {
    return READERS[name](text);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw refused(name, text, error.message);
  }
}

function refused(name: string, text: string, expected: string): OverlayError {
  return new OverlayError(
    'ERR_CONTAINER_NETWORK',
    `cannot use -o ${name}=${oneLine(text, 100)}: it has to be ${expected}`,
  );
}

function numberFrom({ min, max }: { readonly min: number; readonly max: number }): Reader<number> {
  return (text) => {
    const number = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
    if (!(number >= min && number <= max)) throw new TypeError(`a number from ${min} to ${max}`);
    return number;
  };
}

function oneOf<const T extends string>(...values: readonly T[]): Reader<T> {
  return (text) => {
    const found = values.find((value) => value === text);
    if (found === undefined)
      throw new TypeError(values.length === 1 ? (values[0] ?? '') : `one of ${values.join(', ')}`);
    return found;
  };
}
