import { AddressPools, type AddressPoolsOptions } from '../../src/container/address-pools.js';
import { silentLogger } from '../../src/log.js';
import type { TextFiles } from '../../src/sys/text-files.js';
import { net } from './builders.js';
import { FakeClock } from './fake-clock.js';
import { FakeFiles } from './fake-files.js';
import { FakeSharedValues, FakeValueStore } from './fake-shared-values.js';

/** Where each host of {@link AddressHosts} writes its book. */
export const BOOK = '/state/addresses.json';

/** From a start to a crash. */
interface Life {
  readonly store: FakeValueStore;
  pools: AddressPools | undefined;
}

/** A host that can crash: what it was about to do then never happens. */
export class AddressHost {
  readonly files = new FakeFiles();
  #life: Life | undefined;

  constructor(
    readonly name: string,
    private readonly hosts: AddressHosts,
    private readonly options: Partial<AddressPoolsOptions>,
  ) {}

  get isUp(): boolean {
    return this.#life?.pools !== undefined;
  }

  get pools(): AddressPools {
    if (this.#life?.pools === undefined) throw new Error(`${this.name} is not up`);
    return this.#life.pools;
  }

  get store(): FakeValueStore {
    if (this.#life === undefined) throw new Error(`${this.name} is not up`);
    return this.#life.store;
  }

  async start(): Promise<AddressPools> {
    const { clock, values } = this.hosts;
    const store = new FakeValueStore(values, clock);
    const life: Life = { store, pools: undefined };
    this.#life = life;
    life.pools = await AddressPools.open({
      host: this.name,
      etcdPrefix: '/coreos.com/network',
      store,
      clock,
      log: silentLogger,
      files: this.#mortalFiles(store),
      file: BOOK,
      range: (family) => ({
        network: net(family === 4 ? '10.200.0.0/22' : 'fd00:c8::/48'),
        subnetLen: family === 4 ? 24 : 64,
      }),
      ttlSeconds: 60,
      ...this.options,
    });
    return life.pools;
  }

  /** As a power cut: nothing that is under way is finished. */
  crash(): void {
    if (this.#life !== undefined) this.#life.store.isDead = true;
    this.#life = undefined;
  }

  /** A file takes a while to be written; a crash in between leaves the old one or the new one. */
  #mortalFiles(store: FakeValueStore): TextFiles {
    const { clock } = this.hosts;
    const pause = async (): Promise<void> => {
      await clock.sleep(clock.random());
      if (store.isDead) await new Promise(() => {});
    };
    return {
      read: (file) => this.files.read(file),
      write: async (file, text) => {
        await pause();
        await this.files.write(file, text);
        await pause();
      },
    };
  }
}

/** Hosts with one etcd and one clock. */
export class AddressHosts {
  readonly clock: FakeClock;
  readonly values: FakeSharedValues;
  readonly #hosts: AddressHost[] = [];

  constructor(seed = 1) {
    this.clock = new FakeClock(seed);
    this.values = new FakeSharedValues(this.clock);
  }

  make(name: string, options: Partial<AddressPoolsOptions> = {}): AddressHost {
    const host = new AddressHost(name, this, options);
    this.#hosts.push(host);
    return host;
  }

  async start(name: string, options: Partial<AddressPoolsOptions> = {}): Promise<AddressHost> {
    const host = this.make(name, options);
    await host.start();
    return host;
  }

  /** Lets time pass until a promise is settled. */
  async settled<T>(promise: Promise<T>): Promise<T> {
    const state = { isSettled: false };
    const settle = (): void => {
      state.isSettled = true;
    };
    promise.then(settle, settle);
    while (!state.isSettled) await this.clock.advance(5);
    return promise;
  }

  /** Lets a little time pass, in which everybody tells etcd what is to be told. */
  async rest(): Promise<void> {
    await this.clock.advance(1000);
  }

  async close(): Promise<void> {
    for (const host of this.#hosts) {
      if (host.isUp) await this.settled(host.pools.close());
    }
  }
}
