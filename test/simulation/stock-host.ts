import type { SimFlannel } from '../support/sim-flannel.js';

const TTL_SECONDS = 86_400;

/**
 * A host that runs flannel's own daemon, as far as etcd sees it.
 *
 * @remarks It takes a free subnet by a transaction, and renews by granting another etcd lease and putting the same value
 * without any condition; the former etcd lease dies empty. When its key is deleted it ends. It does not notice that its
 * key is missing after a restore.
 * @see flannel `pkg/subnet/etcd/local_manager.go`, `pkg/subnet/etcd/registry.go`
 */
export class StockHost {
  readonly address: string;
  #key: string | undefined;

  constructor(
    private readonly cluster: SimFlannel,
    number: number,
  ) {
    this.address = `192.0.2.${200 + number}`;
  }

  /** Name of its key while it runs. */
  get key(): string | undefined {
    return this.#key;
  }

  /** Takes the first subnet that nobody has, of those with this length. */
  start(second: number, length: number): void {
    const names = new Set(this.cluster.leases.map(({ name }) => name));
    for (let n = 100; n < 200 && this.#key === undefined; n++) {
      const name = length > 24 ? `10.${second}.${n}.0-${length}` : `10.${second}.${n - (n % 4)}.0-${length}`;
      if (!names.has(name)) this.#key = name;
    }
    this.renew();
  }

  /** Writes the key as it does an hour before the end of each day. */
  renew(): void {
    if (this.#key === undefined) return;
    const lease = this.cluster.etcd.grantLease(TTL_SECONDS);
    this.cluster.putLease(this.#key, JSON.stringify({ PublicIP: this.address, PublicIPv6: null }), lease);
  }

  /** What it does when it sees that its key was deleted, or the subnet is no longer configured. */
  end(): void {
    this.#key = undefined;
  }
}
