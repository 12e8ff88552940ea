import type { Clock } from '../../src/clock.js';
import { type SimEntry, SimEtcdCluster, type SimEtcdOptions } from './sim-etcd/cluster.js';

const PREFIX = '/coreos.com/network';

/** A simulated etcd as flannel uses it, seen from outside: what an operator would do with etcdctl. */
export class SimFlannel {
  readonly etcd: SimEtcdCluster;

  constructor(clock: Clock, options: Omit<SimEtcdOptions, 'clock'> = {}) {
    this.etcd = new SimEtcdCluster({ ...options, clock });
  }

  configure(text: string): void {
    this.etcd.put(`${PREFIX}/config`, text);
  }

  /** Writes below `subnets/` as another program would; the key keeps the etcd lease that it has. */
  putLease(name: string, value: string, leaseId = this.lease(name)?.leaseId ?? '0'): void {
    this.etcd.put(`${PREFIX}/subnets/${name}`, value, leaseId);
  }

  deleteLease(name: string): void {
    this.etcd.delete(`${PREFIX}/subnets/${name}`);
  }

  lease(name: string): SimEntry | undefined {
    return this.etcd.get(`${PREFIX}/subnets/${name}`);
  }

  /** Names and values below `subnets/`. */
  get leases(): readonly (SimEntry & { readonly name: string })[] {
    const prefix = `${PREFIX}/subnets/`;
    return this.etcd.list(prefix).map((entry) => ({ ...entry, name: entry.key.slice(prefix.length) }));
  }

  /** Ends every member, or starts them again on their data. */
  setDown(isDown: boolean): void {
    for (const { target } of this.etcd.members) {
      if (isDown) this.etcd.stopMember(target);
      else this.etcd.startMember(target);
    }
  }
}
