import { OverlayError } from '../../errors.js';
import { isDeviceName } from '../../netlink/device-name.js';
import { oneLine } from '../../printable.js';
import type { NetworkSettings } from './network.js';
import { networkType } from './network-types.js';

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

const READERS = {
  type: oneOf('macvlan'),
  parent: (text: string) => {
    if (!isDeviceName(text)) throw new TypeError('the name of an interface, or auto');
    return text === 'auto' ? undefined : text;
  },
  vlan: numberFrom(VLAN_ID),
  mode: (text: string) => text, // which ones there are, the type says
  mtu: numberFrom(MTU),
  'host-access': oneOf('true', 'false'),
  probe: oneOf('on', 'off'),
} as const satisfies Readonly<Record<string, Reader<unknown>>>;

type OptionName = keyof typeof READERS;

/** Options that Docker itself knows under another name. */
const ALIASES: Readonly<Record<string, OptionName>> = {
  'com.docker.network.driver.mtu': 'mtu',
  macvlan_mode: 'mode',
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
  const given = new Map<OptionName, string>();
  for (const [name, text] of Object.entries(options)) given.set(optionNamed(name), text);
  const value = <N extends OptionName>(name: N): ReturnType<(typeof READERS)[N]> | undefined => {
    const text = given.get(name);
    return text === undefined ? undefined : (read(name, text) as ReturnType<(typeof READERS)[N]>);
  };
  const type = value('type') ?? 'macvlan';
  const { modes } = networkType(type);
  const mode = value('mode') ?? modes[0];
  if (!modes.includes(mode)) throw refused('mode', mode, `one of ${modes.join(', ')}`);
  return {
    settings: {
      type,
      mode,
      mtu: value('mtu'),
      hasHostAccess: value('host-access') === 'true',
      isProbed: value('probe') !== 'off',
    },
    parent: { name: value('parent'), vlanId: value('vlan') },
  };
}

function optionNamed(name: string): OptionName {
  if (Object.hasOwn(READERS, name)) return name as OptionName;
  const alias = Object.hasOwn(ALIASES, name) ? ALIASES[name] : undefined;
  if (alias !== undefined) return alias;
  throw new OverlayError('ERR_CONTAINER_NETWORK', `cannot use -o ${oneLine(name, 100)}: there is no such option`, {
    hint: `those that there are: ${Object.keys(READERS).join(', ')}`,
  });
}

function read(name: OptionName, text: string): unknown {
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
