import type { IpAddress } from '../ip/address.js';
import { IFLA_IPTUN, IFLA_IPVLAN, IFLA_MACVLAN_MODE, IFLA_VLAN_ID, IFLA_VXLAN } from './constants.js';
import type { AttributeTable, MessageWriter } from './message.js';

/** What only a VXLAN device has, as far as it decides whether a device is the wanted one. */
export interface VxlanDetails {
  readonly kind: 'vxlan';
  readonly vni: number;
  /** 0 if the device is not tied to an underlay device. */
  readonly underlayIndex: number;
  readonly local: IpAddress | undefined;
  /** Multicast group or fixed remote. */
  readonly group: IpAddress | undefined;
  /** 0 for a new device leaves it to the kernel, which takes 8472. */
  readonly port: number;
  readonly learning: boolean;
  readonly l2miss: boolean;
  readonly l3miss: boolean;
  readonly gbp: boolean;
  /** The device takes its parameters from each packet's metadata (`external`). */
  readonly isExternal: boolean;
}

/** What only an IPIP device has. */
export interface IpipDetails {
  readonly kind: 'ipip';
  readonly local: IpAddress | undefined;
  readonly remote: IpAddress | undefined;
  /** 0 inherits the inner packet's. */
  readonly ttl: number;
  readonly pmtuDiscovery: boolean;
}

/** What only a VLAN device has. */
export interface VlanDetails {
  readonly kind: 'vlan';
  readonly id: number;
}

const MACVLAN_MODES = { private: 1, vepa: 2, bridge: 4, passthru: 8, source: 16 } as const;
const IPVLAN_MODES = { l2: 0, l3: 1, l3s: 2 } as const;
/** Bits of which at most one is set (`ipvlan_nl_validate()`). */
const IPVLAN_FLAGS = { bridge: 0, private: 1, vepa: 2 } as const;

/** What only a macvlan device has. */
export interface MacvlanDetails {
  readonly kind: 'macvlan';
  /** A number where the kernel names one that is not known here. */
  readonly mode: string;
}

/** What only an ipvlan device has; all on one lower device have the same, and a new one changes it for all. */
export interface IpvlanDetails {
  readonly kind: 'ipvlan';
  /** As for {@link MacvlanDetails}. */
  readonly mode: string;
  /** As for {@link MacvlanDetails}: whether the devices on one lower device reach each other, and which way. */
  readonly flag: string;
}

/** The kinds of devices that have attributes of their own which we read or write. */
export interface DetailsByKind {
  readonly vxlan: VxlanDetails;
  readonly ipip: IpipDetails;
  readonly vlan: VlanDetails;
  readonly macvlan: MacvlanDetails;
  readonly ipvlan: IpvlanDetails;
}

/** Attributes of the kinds that have any we read. */
export type LinkDetails = DetailsByKind[keyof DetailsByKind];

/** Those that a new device of the kind can be given; what is absent is left to the kernel, except where a codec says so. */
type NewDetails<K extends keyof DetailsByKind, Required extends keyof DetailsByKind[K]> = Partial<DetailsByKind[K]> &
  Pick<DetailsByKind[K], Required>;

/** What a new device is given of what only its kind has. */
export type NewLinkData =
  | NewDetails<'vxlan', 'kind' | 'vni'>
  | NewDetails<'ipip', 'kind'>
  | NewDetails<'vlan', 'kind' | 'id'>
  | (MacvlanDetails & { readonly mode: keyof typeof MACVLAN_MODES })
  | (IpvlanDetails & { readonly mode: keyof typeof IPVLAN_MODES; readonly flag: keyof typeof IPVLAN_FLAGS });

/** How one field is written into, and read from, `IFLA_INFO_DATA`, and compared. */
interface FieldCodec<Value> {
  /** @param value - undefined if a new device is not told. */
  readonly write: (writer: MessageWriter, value: Value | undefined) => void;
  readonly read: (data: AttributeTable) => Value;
  /** Default `===`. */
  readonly isSame?: (a: Value, b: Value) => boolean;
}

function u32(type: number): FieldCodec<number> {
  return {
    write: (writer, value) => value !== undefined && writer.attributeU32(type, value),
    read: (data) => data.u32(type) ?? 0,
  };
}

function u16(type: number): FieldCodec<number> {
  return {
    write: (writer, value) => value !== undefined && writer.attributeU16(type, value),
    read: (data) => data.u16(type) ?? 0,
  };
}

/** @param absent - written for a new device that is not told; undefined leaves it to the kernel. */
function bool(type: number, absent?: boolean): FieldCodec<boolean> {
  return {
    write: (writer, value = absent) => value !== undefined && writer.attributeU8(type, Number(value)),
    read: (data) => data.u8(type) === 1,
  };
}

function address(type4: number, type6?: number): FieldCodec<IpAddress | undefined> {
  return {
    write: (writer, value) => {
      if (value !== undefined) writer.attributeAddress(value.family === 4 ? type4 : (type6 ?? type4), value);
    },
    read: (data) =>
      specified(data.address(type4)) ?? (type6 === undefined ? undefined : specified(data.address(type6))),
    isSame: (a, b) => a === b || (a?.equals(b) ?? false),
  };
}

function specified(value: IpAddress | undefined): IpAddress | undefined {
  return value?.isUnspecified === true ? undefined : value;
}

function named(names: Readonly<Record<string, number>>, number: FieldCodec<number>): FieldCodec<string> {
  return {
    write: (writer, value) => {
      number.write(writer, value === undefined ? undefined : names[value]);
    },
    read: (data) => {
      const value = number.read(data);
      return Object.entries(names).find(([, known]) => known === value)?.[0] ?? String(value);
    },
  };
}

/** One codec for each field of each kind, in the order in which they are written. */
const CODECS: {
  readonly [K in keyof DetailsByKind]: {
    readonly [F in Exclude<keyof DetailsByKind[K], 'kind'>]: FieldCodec<DetailsByKind[K][F]>;
  };
} = {
  vxlan: {
    vni: u32(IFLA_VXLAN.ID),
    underlayIndex: u32(IFLA_VXLAN.LINK),
    local: address(IFLA_VXLAN.LOCAL, IFLA_VXLAN.LOCAL6),
    group: address(IFLA_VXLAN.GROUP, IFLA_VXLAN.GROUP6),
    port: {
      write: (writer, port = 0) => port !== 0 && writer.attributeU16be(IFLA_VXLAN.PORT, port),
      read: (data) => data.u16be(IFLA_VXLAN.PORT) ?? 0,
    },
    learning: bool(IFLA_VXLAN.LEARNING, false),
    l2miss: bool(IFLA_VXLAN.L2MISS),
    l3miss: bool(IFLA_VXLAN.L3MISS),
    gbp: {
      write: (writer, isOn = false) => isOn && writer.attributeFlag(IFLA_VXLAN.GBP),
      read: (data) => data.has(IFLA_VXLAN.GBP),
    },
    isExternal: bool(IFLA_VXLAN.COLLECT_METADATA),
  },
  ipip: {
    local: address(IFLA_IPTUN.LOCAL),
    remote: address(IFLA_IPTUN.REMOTE),
    ttl: {
      write: (writer, ttl = 0) => writer.attributeU8(IFLA_IPTUN.TTL, ttl),
      read: (data) => data.u8(IFLA_IPTUN.TTL) ?? 0,
    },
    pmtuDiscovery: bool(IFLA_IPTUN.PMTUDISC, true),
  },
  vlan: { id: u16(IFLA_VLAN_ID) },
  macvlan: { mode: named(MACVLAN_MODES, u32(IFLA_MACVLAN_MODE)) },
  ipvlan: { mode: named(IPVLAN_MODES, u16(IFLA_IPVLAN.MODE)), flag: named(IPVLAN_FLAGS, u16(IFLA_IPVLAN.FLAGS)) },
};

function codecsOf(kind: string): readonly (readonly [string, FieldCodec<unknown>])[] {
  return Object.hasOwn(CODECS, kind) ? Object.entries(CODECS[kind as keyof DetailsByKind]) : [];
}

/** Writes the inside of `IFLA_INFO_DATA` for a new device; nothing for a kind without attributes. */
export function writeDetails(writer: MessageWriter, link: { readonly kind: string }): void {
  for (const [field, { write }] of codecsOf(link.kind)) write(writer, valueOf(link, field));
}

/**
 * Reads the inside of `IFLA_INFO_DATA`.
 *
 * @returns undefined for a kind without attributes that we read.
 */
export function readDetails(kind: string, data: AttributeTable): LinkDetails | undefined {
  const codecs = codecsOf(kind);
  if (codecs.length === 0) return undefined;
  return Object.fromEntries([['kind', kind], ...codecs.map(([field, { read }]) => [field, read(data)])]) as LinkDetails;
}

/** Whether two descriptions agree in every attribute that we read. */
export function isSameDetails(a: LinkDetails | undefined, b: LinkDetails | undefined): boolean {
  if (a === undefined || b === undefined || a.kind !== b.kind) return a === b;
  return codecsOf(a.kind).every(([field, { isSame = Object.is }]) => isSame(valueOf(a, field), valueOf(b, field)));
}

function valueOf(object: object, field: string): unknown {
  return (object as Readonly<Record<string, unknown>>)[field];
}
