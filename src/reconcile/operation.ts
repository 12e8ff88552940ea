import type { IpAddress } from '../ip/address.js';
import type { MacAddress } from '../ip/mac.js';
import type { WireguardPublicKey, WireguardSecret } from '../ip/wireguard-key.js';
import type { LinkChange } from '../netlink/link.js';
import type { RouteInfo } from '../netlink/route.js';
import type {
  FilterDirection,
  LinkField,
  LinkKinds,
  MadeLinkKind,
  ObjectKind,
  RouteSpec,
  WireguardPeerSpec,
} from './desired.js';
import type { FormerValue } from './former-values.js';
import type { ObjectKey } from './object-key.js';

/** Why an operation is needed: the object is not there, is not as it should be, or should not be there. */
export type OperationReason = 'missing' | 'altered' | 'unexpected';

/** What is done to a kernel object. */
export type OperationVerb = 'add' | 'replace' | 'set' | 'del';

/** Attributes of a device that are changed in place, each by an operation of its own, so that one refusal stops no other. */
export type LinkAspect = 'alias' | 'up' | { [K in keyof LinkKinds]: LinkField<K> }[keyof LinkKinds];

/** Kinds of objects that the kernel is asked for directly; a tunnel is a part of this process. */
export type KernelObjectKind = Exclude<ObjectKind, 'tunnel'>;

/** What can be done to an object of each kind. Devices are named; who carries it out knows their indexes at that moment. */
interface Operations {
  readonly link:
    | {
        readonly verb: 'add';
        readonly device: string;
        readonly spec: LinkKinds[MadeLinkKind];
        readonly alias: string;
        /** A device of that name is there and cannot be changed into the wanted one: delete it first. */
        readonly replaces: boolean;
      }
    | { readonly verb: 'set'; readonly device: string; readonly aspect: LinkAspect; readonly change: LinkChange }
    | { readonly verb: 'del'; readonly device: string };
  readonly sysctl: {
    readonly verb: 'set';
    /** Undefined for parameters of the whole host. */
    readonly device: string | undefined;
    readonly path: string;
    readonly value: string;
    /** What it is now, to be remembered; undefined if nobody needs to know. */
    readonly former?: FormerValue;
  };
  readonly address: {
    readonly verb: 'replace' | 'del';
    readonly device: string;
    readonly address: IpAddress;
    readonly length: number;
    readonly peer: IpAddress | undefined;
    /** Default false. */
    readonly noPrefixRoute?: boolean;
  };
  readonly neighbour: {
    readonly verb: 'replace' | 'del';
    readonly device: string;
    readonly address: IpAddress;
    /** Undefined for deletion. */
    readonly mac: MacAddress | undefined;
  };
  readonly 'proxy-neighbour': {
    readonly verb: 'add' | 'del';
    readonly device: string;
    readonly address: IpAddress;
  };
  readonly fdb:
    | { readonly verb: 'replace'; readonly device: string; readonly mac: MacAddress; readonly destination: IpAddress }
    | { readonly verb: 'del'; readonly device: string; readonly mac: MacAddress };
  readonly filter: {
    readonly verb: 'replace' | 'del';
    readonly device: string;
    readonly direction: FilterDirection;
    /** Empty for deletion. */
    readonly stations: readonly MacAddress[];
  };
  readonly port: {
    readonly verb: 'set';
    readonly device: string;
    readonly bridge: string;
    readonly isIsolated: boolean;
    readonly isHairpin: boolean;
  };
  readonly wireguard: {
    readonly verb: 'set';
    readonly device: string;
    readonly privateKey: WireguardSecret;
    readonly listenPort: number;
  };
  readonly 'wireguard-peer':
    | {
        readonly verb: 'replace';
        readonly device: string;
        readonly peer: WireguardPeerSpec;
        /** False leaves the peer where it was last heard from. */
        readonly setsEndpoint: boolean;
      }
    | { readonly verb: 'del'; readonly device: string; readonly publicKey: WireguardPublicKey };
  readonly route:
    | { readonly verb: 'add' | 'replace'; readonly device: string | undefined; readonly route: RouteSpec }
    | {
        readonly verb: 'del';
        readonly device: string | undefined;
        /** Exactly this one, whatever else has the same destination. */
        readonly route: RouteInfo;
      };
}

/** One change to the kernel. */
export type Operation<K extends KernelObjectKind = KernelObjectKind> = {
  [P in K]: Operations[P] & {
    readonly kind: P;
    /** Object it is about. */
    readonly key: ObjectKey;
    readonly reason: OperationReason;
  };
}[K];

/** Counts per kind and verb. */
export type ChangeCounts = Readonly<Record<ObjectKind, Readonly<Record<OperationVerb, number>>>>;
