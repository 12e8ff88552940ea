import type { ClusterNetwork } from '../../container/cluster-networks.js';
import type { MacAddress } from '../../ip/mac.js';

/** What the checks of container networks look at besides the daemon's account of them. */
export interface ContainerFacts {
  /** Interfaces that containers lie on. */
  readonly parents: readonly ParentFacts[];
  /** Undefined where etcd could not be asked. */
  readonly cluster: readonly ClusterNetwork[] | undefined;
  /** Hosts with addresses, whose lease in etcd is no longer renewed. */
  readonly silentHosts: readonly string[];
  /** Containers in these networks that Docker was to start again and could not. */
  readonly stranded: readonly StrandedContainer[];
  /** Maker and model of this machine, as its firmware has them; empty where there is none. */
  readonly machine: string;
}

/** An interface that containers lie on, as it is seen from its switch. */
export interface ParentFacts {
  readonly name: string;
  /** MAC addresses from which its switch gets frames, its own included. */
  readonly macs: readonly MacAddress[];
  readonly isWireless: boolean;
  /** Undefined where nobody answered the interface itself, so that nothing can be told. */
  readonly foreign: ForeignMac | undefined;
}

/** What became of a question from a MAC address that is not the interface's, where one from that was answered. */
export interface ForeignMac {
  readonly address: string;
  readonly mac: MacAddress;
  readonly isAnswered: boolean;
}

/** A container that restarts by itself, and is down because its network or its address could not be had. */
export interface StrandedContainer {
  readonly name: string;
  /** What Docker said. */
  readonly error: string;
}
