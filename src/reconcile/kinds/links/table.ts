import type { LinkChange, LinkInfo, NewLink } from '../../../netlink/link.js';
import type { LinkKinds, LinkSpec, MadeLinkKind } from '../../desired.js';
import type { Comparison } from '../../equality.js';
import type { LinkAspect } from '../../operation.js';
import { bridgeKind } from './bridge.js';
import { dummyKind } from './dummy.js';
import { ipipKind } from './ipip.js';
import { ipvlanKind } from './ipvlan.js';
import type { LinkDefaults, LinkKind } from './link-kind.js';
import { macvlanKind } from './macvlan.js';
import { tunKind } from './tun.js';
import { vethKind } from './veth.js';
import { vlanKind } from './vlan.js';
import { vxlanKind } from './vxlan.js';
import { wireguardLinkKind } from './wireguard.js';

const LINK_KINDS: { readonly [K in keyof LinkKinds]: LinkKind<K> } = {
  tun: tunKind,
  vxlan: vxlanKind,
  ipip: ipipKind,
  wireguard: wireguardLinkKind,
  macvlan: macvlanKind,
  ipvlan: ipvlanKind,
  vlan: vlanKind,
  dummy: dummyKind,
  bridge: bridgeKind,
  veth: vethKind,
};

/** A {@link LinkKind} as it looks to those who handle all of them alike. */
interface AnyLinkKind {
  readonly fields: readonly (readonly [LinkAspect, AnyAttribute])[];
  /** Undefined where devices of the kind have no attributes of their own. */
  readonly others: readonly (readonly [string, (value: unknown) => boolean])[] | undefined;
  readonly constants: Partial<NewLink>;
}

interface AnyAttribute {
  readonly isSame: Comparison<unknown>;
  readonly isOn: (value: unknown, device: LinkInfo, defaults: LinkDefaults) => boolean;
  readonly make?: (value: unknown) => Partial<NewLink>;
  readonly change?: (value: unknown) => LinkChange;
  readonly losesNeighbours?: boolean;
}

function untyped(kind: object): AnyLinkKind {
  const { fields, others, constants } = kind as Record<'fields' | 'others' | 'constants', object | undefined>;
  return {
    fields: Object.entries(fields ?? {}) as AnyLinkKind['fields'],
    others: others && (Object.entries(others) as AnyLinkKind['others']),
    constants: constants ?? {},
  };
}

const DESCRIPTIONS = Object.fromEntries(
  Object.entries(LINK_KINDS).map(([name, kind]) => [name, untyped(kind)]),
) as Readonly<Record<keyof LinkKinds, AnyLinkKind>>;

/** The value of a field of a specification or of what the kernel says; the description knows its type. */
function valueOf(object: object, field: string): unknown {
  return (object as Readonly<Record<string, unknown>>)[field];
}

/** Whether flannel makes devices of that kind. */
export function isFlannelsKind(kind: string): boolean {
  return Object.hasOwn(LINK_KINDS, kind) && LINK_KINDS[kind as keyof LinkKinds].isFlannels;
}

/** Whether two specifications are of the same device, and want the same of it. */
export function isSameLinkSpec(a: LinkSpec, b: LinkSpec): boolean {
  if (a.kind !== b.kind || a.name !== b.name) return false;
  return DESCRIPTIONS[a.kind].fields.every(([field, { isSame }]) => isSame(valueOf(a, field), valueOf(b, field)));
}

/** Whether everything that the kernel fixes when it makes a device of the wanted kind is as it should be. */
export function hasFixedAttributes(spec: LinkSpec, link: LinkInfo, defaults: LinkDefaults): boolean {
  const { fields, others } = DESCRIPTIONS[spec.kind];
  if (others !== undefined && link.details?.kind !== spec.kind) return false;
  return (
    fields.every(([field, { change, isOn }]) => change !== undefined || isOn(valueOf(spec, field), link, defaults)) &&
    (others ?? []).every(([field, fits]) => fits(valueOf(link.details ?? {}, field)))
  );
}

/** What has to be changed in place on a device that has the fixed attributes. */
export function changesTo(
  spec: LinkSpec,
  link: LinkInfo,
  defaults: LinkDefaults,
): { readonly aspect: LinkAspect; readonly change: LinkChange; readonly losesNeighbours: boolean }[] {
  return DESCRIPTIONS[spec.kind].fields.flatMap(([aspect, { isOn, change, losesNeighbours = false }]) => {
    const value = valueOf(spec, aspect);
    if (change === undefined || isOn(value, link, defaults)) return [];
    return [{ aspect, change: change(value), losesNeighbours }];
  });
}

/** The device that a specification asks for, as it is made. */
export function newLink(spec: LinkKinds[MadeLinkKind]): NewLink {
  const { fields, constants } = DESCRIPTIONS[spec.kind];
  const parts = fields.map(([field, { make }]) => make?.(valueOf(spec, field)));
  return Object.assign({ kind: spec.kind, name: spec.name }, constants, ...parts) as NewLink;
}
