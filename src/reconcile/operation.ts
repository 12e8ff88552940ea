import type { IpAddress } from '../ip/address.js';
import type { MacAddress } from '../ip/mac.js';
import type { LinkChange } from '../netlink/link.js';
import type { RouteInfo } from '../netlink/route.js';
import type { IpipLink, RouteSpec, VxlanLink } from './desired.js';
import type { ObjectKey, ObjectKind } from './object-key.js';

/** Why an operation is needed: the object is not there, is not as it should be, or should not be there. */
export type OperationReason = 'missing' | 'altered' | 'unexpected';

/** What is done to a kernel object. */
export type OperationVerb = 'add' | 'replace' | 'set' | 'del';

interface OperationCommon {
  /** Object it is about. */
  readonly key: ObjectKey;
  readonly reason: OperationReason;
}

/** Attributes of a device that are changed in place, each by an operation of its own, so that one refusal stops no other. */
export type LinkAspect = 'mtu' | 'mac' | 'txQueueLength' | 'alias' | 'learning' | 'up';

/** One change to the kernel. Devices are named; who carries it out knows their indexes at that moment. */
export type Operation =
  | (OperationCommon & {
      readonly kind: 'link';
      readonly verb: 'add';
      readonly device: string;
      readonly spec: VxlanLink | IpipLink;
      readonly alias: string;
      /** A device of that name is there and cannot be changed into the wanted one: delete it first. */
      readonly replaces: boolean;
    })
  | (OperationCommon & {
      readonly kind: 'link';
      readonly verb: 'set';
      readonly device: string;
      readonly aspect: LinkAspect;
      readonly change: LinkChange;
    })
  | (OperationCommon & { readonly kind: 'link'; readonly verb: 'del'; readonly device: string })
  | (OperationCommon & {
      readonly kind: 'sysctl';
      readonly verb: 'set';
      /** Undefined for parameters of the whole host. */
      readonly device: string | undefined;
      readonly path: string;
      readonly value: string;
    })
  | (OperationCommon & {
      readonly kind: 'address';
      readonly verb: 'replace' | 'del';
      readonly device: string;
      readonly address: IpAddress;
      readonly length: number;
      readonly peer: IpAddress | undefined;
    })
  | (OperationCommon & {
      readonly kind: 'neighbour';
      readonly verb: 'replace' | 'del';
      readonly device: string;
      readonly address: IpAddress;
      /** Undefined for deletion. */
      readonly mac: MacAddress | undefined;
    })
  | (OperationCommon & {
      readonly kind: 'fdb';
      readonly verb: 'replace';
      readonly device: string;
      readonly mac: MacAddress;
      readonly destination: IpAddress;
    })
  | (OperationCommon & {
      readonly kind: 'fdb';
      readonly verb: 'del';
      readonly device: string;
      readonly mac: MacAddress;
    })
  | (OperationCommon & {
      readonly kind: 'route';
      readonly verb: 'add' | 'replace';
      readonly device: string | undefined;
      readonly route: RouteSpec;
    })
  | (OperationCommon & {
      readonly kind: 'route';
      readonly verb: 'del';
      readonly device: string | undefined;
      /** Exactly this one, whatever else has the same destination. */
      readonly route: RouteInfo;
    });

/** Counts per kind and verb. */
export type ChangeCounts = Readonly<Record<ObjectKind, Readonly<Record<OperationVerb, number>>>>;

/** What a failure of the operation is remembered under: the object, or the one attribute of it. */
export function failureKey(operation: Operation): ObjectKey {
  return 'aspect' in operation ? `${operation.key} ${operation.aspect}` : operation.key;
}
