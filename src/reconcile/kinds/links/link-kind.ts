import type { LinkChange, LinkInfo, NewLink } from '../../../netlink/link.js';
import type { DetailsByKind } from '../../../netlink/link-details.js';
import type { LinkField, LinkKinds, MadeLinkKind } from '../../desired.js';
import type { Comparison } from '../../equality.js';

/** What decides, besides the specification, how the kernel makes a device. */
export interface LinkDefaults {
  /** UDP port of VXLAN devices that are made without one. */
  readonly defaultVxlanPort: number;
}

/** A device of that kind to make, as netlink takes it. */
export type NewLinkOf<K extends MadeLinkKind> = Extract<NewLink, { readonly kind: K }>;

/** A device of that kind as the kernel describes it. */
export type Device<K extends keyof LinkKinds> = Omit<LinkInfo, 'details'> & {
  readonly details: K extends keyof DetailsByKind ? DetailsByKind[K] : unknown;
};

/** How one field of a specification is compared with another, found on a device, given to a new one, and changed. */
export type Attribute<K extends keyof LinkKinds, Value> = {
  /** Whether two specifications want the same. */
  readonly isSame: Comparison<Value>;
  /** Whether the device has it. */
  readonly isOn: (value: Value, device: Device<K>, defaults: LinkDefaults) => boolean;
  /** Changes it in place. Without this the kernel fixes it when it makes the device, and another device has to be made. */
  readonly change?: (value: Value) => LinkChange;
  /** The kernel drops the device's ARP and ND entries when it is changed in place. */
  readonly losesNeighbours?: boolean;
} & (K extends MadeLinkKind ? { readonly make: (value: Value) => Partial<NewLinkOf<K>> } : unknown);

/** One kind of device: every field of its specification, and every other attribute by which one can be unfit. */
export type LinkKind<K extends keyof LinkKinds> = {
  /** Whether flannel makes such devices; no others are ever taken over or deleted by name. */
  readonly isFlannels: boolean;
  /** In the order in which they are changed. */
  readonly fields: { readonly [F in LinkField<K>]-?: Attribute<K, LinkKinds[K][F]> };
} & (K extends MadeLinkKind & keyof DetailsByKind ? MadeLink<K> : unknown);

interface MadeLink<K extends MadeLinkKind & keyof DetailsByKind> {
  /** Which values our devices can have of what the specification does not name. */
  readonly others: {
    readonly [F in Exclude<keyof DetailsByKind[K], keyof LinkKinds[K]>]: (value: DetailsByKind[K][F]) => boolean;
  };
  /** What every new device is given besides. */
  readonly constants: Partial<NewLinkOf<K>>;
}
