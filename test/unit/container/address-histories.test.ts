import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { AddressPools } from '../../../src/container/address-pools.js';
import type { AddressRequest, AddressUse } from '../../../src/container/addresses.js';
import { decodeBook } from '../../../src/container/address-book.js';
import { addressesIn } from '../../../src/container/pool-layout.js';
import { formatPoolId } from '../../../src/container/pool-id.js';
import { isOverlayError } from '../../../src/errors.js';
import type { IpAddress } from '../../../src/ip/address.js';
import type { MacAddress } from '../../../src/ip/mac.js';
import { ip, mac, net } from '../../support/builders.js';
import { type AddressHost, AddressHosts, BOOK } from '../../support/address-hosts.js';
import { settle } from '../../support/fake-clock.js';
import { FakeRegister } from '../../support/fake-register.js';

const SUBNET = net('10.9.0.0/24');
const RANGE = net('10.9.0.0/27');
const POOL = formatPoolId({ name: undefined, subnet: SUBNET, range: RANGE });
const NAMES = ['a', 'b', 'c'];

/** So that leases run out in a history that is not long. */
const TTL_SECONDS = 60;

/** After which an address that no container has is taken back. */
const ORPHAN_SECONDS = 60;

type Step =
  | {
      readonly kind: 'give' | 'release' | 'crash' | 'start' | 'away' | 'back' | 'shared' | 'replaced';
      readonly host: number;
      readonly pick: number;
    }
  | { readonly kind: 'pass'; readonly ms: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: on('give') },
  { weight: 4, arbitrary: on('release') },
  { weight: 2, arbitrary: on('crash') },
  { weight: 3, arbitrary: on('start') },
  { weight: 1, arbitrary: on('away') },
  { weight: 2, arbitrary: on('back') },
  { weight: 1, arbitrary: on('shared') },
  { weight: 1, arbitrary: on('replaced') },
  { weight: 6, arbitrary: pass(0, 20) },
  { weight: 2, arbitrary: pass(100, 3000) },
  { weight: 1, arbitrary: pass(20_000, 90_000) },
);

function on(kind: Exclude<Step['kind'], 'pass'>): fc.Arbitrary<Step> {
  return fc.record({ kind: fc.constant(kind), host: fc.nat(NAMES.length - 1), pick: fc.nat(99) });
}

function pass(min: number, max: number): fc.Arbitrary<Step> {
  return fc.record({ kind: fc.constant('pass' as const), ms: fc.integer({ min, max }) });
}

/** Hosts to which anything may happen, and what their containers have been told. */
class History {
  readonly hosts: AddressHosts;
  readonly all: readonly AddressHost[];
  /** Addresses of containers, and their MAC addresses, by host. */
  readonly held = new Map<AddressHost, Map<string, MacAddress>>();
  /** What the network driver of each host knows. */
  readonly registers = new Map<AddressHost, FakeRegister>();
  given = 0;
  #serial = 0;
  #epoch = 0;
  #restore = (): void => this.hosts.values.wipe();
  readonly #away = new Set<AddressHost>();

  constructor(
    seed: number,
    private readonly trouble: number,
  ) {
    this.hosts = new AddressHosts(seed);
    this.all = NAMES.map((name) => {
      const register = new FakeRegister();
      const host = this.hosts.make(name, {
        ttlSeconds: TTL_SECONDS,
        orphanSeconds: ORPHAN_SECONDS,
        register: () => register,
      });
      this.registers.set(host, register);
      this.held.set(host, new Map());
      return host;
    });
  }

  heldBy(host: AddressHost): Map<string, MacAddress> {
    return this.held.get(host) ?? new Map<string, MacAddress>();
  }

  async start(host: AddressHost): Promise<void> {
    if (host.isUp) return;
    await host.start();
    host.pools.observe({ epoch: this.#epoch });
    const { clock } = this.hosts;
    host.store.fate = () => {
      const chance = clock.random();
      if (chance >= this.trouble) return 'answered';
      return chance < this.trouble / 3 ? 'refused' : chance < (2 * this.trouble) / 3 ? 'unanswered' : 'late';
    };
    this.forget(host.pools.requestPool({ pool: SUBNET, range: RANGE, name: undefined, family: 4 }));
  }

  /** Only errors that explain themselves are allowed. */
  forget(promise: Promise<unknown>): void {
    promise.catch((error: unknown) => assert.ok(isOverlayError(error), String(error)));
  }

  async carryOut(step: Step): Promise<void> {
    if (step.kind === 'pass') return this.hosts.clock.advance(step.ms);
    if (step.kind === 'replaced') {
      this.replace(step.pick);
      return;
    }
    const host = this.all[step.host];
    if (host === undefined) return;
    if (step.kind === 'start') return this.start(host);
    if (!host.isUp) return;
    switch (step.kind) {
      case 'give':
        this.give(host, step.pick);
        return settle();
      case 'release':
        this.release(host, [...this.heldBy(host).keys()][step.pick % 8], step.pick);
        return settle();
      case 'shared':
        this.forget(
          host.pools.requestAddress(POOL, {
            ...request(0),
            kind: 'auxiliary',
            address: ip(`10.9.0.${20 + (step.pick % 8)}`),
          }),
        );
        return settle();
      case 'crash':
        host.crash();
        this.#away.delete(host);
        return;
      case 'away':
      case 'back':
        host.store.isAway = step.kind === 'away';
        if (step.kind === 'away') this.#away.add(host);
        else this.#away.delete(host);
    }
  }

  /** etcd is wiped or restored; only if all can hear of it, since nobody can know better before. */
  replace(pick: number): void {
    if (this.#away.size > 0 || !this.all.every(({ isUp }) => isUp)) return;
    if (pick < 50) this.#restore();
    else this.hosts.values.wipe();
    this.#epoch++;
    for (const host of this.all) host.pools.observe({ epoch: this.#epoch });
    this.#restore = this.hosts.values.backup();
    this.check();
  }

  give(host: AddressHost, pick: number): void {
    const { pools } = host;
    const address = pick < 50 ? undefined : ip(`10.9.0.${2 + (pick % 34)}`);
    const asked = request(++this.#serial);
    const answer = pools.requestAddress(POOL, { ...asked, address, register: 'register' });
    this.forget(
      answer.then((given) => {
        if (!host.isUp || host.pools !== pools) return; // nobody was left to hear it
        this.given++;
        this.#goOn(host, pools, given, asked.mac ?? mac(0));
      }),
    );
  }

  /** What an engine does with an address: mostly at once, sometimes late, and never if it is killed before. */
  #goOn(host: AddressHost, pools: AddressPools, address: IpAddress, own: MacAddress): void {
    const { clock } = this.hosts;
    const chance = clock.random();
    if (chance < 0.1) return;
    if (chance >= 0.2) this.join(host, pools, address, own);
    else {
      clock.after(clock.random() * 1500 * ORPHAN_SECONDS, () => {
        if (host.isUp && host.pools.isGiven(address, own)) this.join(host, host.pools, address, own);
      });
    }
  }

  join(host: AddressHost, pools: AddressPools, address: IpAddress, own: MacAddress): void {
    this.registers.get(host)?.set(address, own, 'joined');
    this.heldBy(host).set(address.toString(), own);
    pools.review();
    this.check();
  }

  release(host: AddressHost, text: string | undefined, pick: number): void {
    const own = text === undefined ? undefined : this.heldBy(host).get(text);
    if (text === undefined || own === undefined) return;
    this.heldBy(host).delete(text);
    const address = ip(text);
    this.registers.get(host)?.set(address, own, undefined);
    host.pools.review();
    const isKilled = pick < 10;
    if (!isKilled) this.forget(host.pools.releaseAddress(POOL, address));
  }

  /** What a host may rely on that nobody else has: what it says, or what its book says while it is down. */
  secured(host: AddressHost): readonly string[] {
    const held = this.heldBy(host);
    return this.uses(host)
      .filter(({ state }) => state === 'confirmed')
      .map(({ address }) => address.toString())
      .filter((address) => held.has(address));
  }

  uses(host: AddressHost): readonly Pick<AddressUse, 'address' | 'state'>[] {
    if (host.isUp) return host.pools.status().pools.flatMap(({ uses }) => uses);
    if (this.#epoch > 0) return []; // it may be of another history, which a host hears of when it starts
    const text = host.files.texts.get(BOOK);
    if (text === undefined) return [];
    const { lease, pools } = decodeBook(text);
    const isOver = lease === undefined || lease.expiresAtMs <= this.hosts.clock.wallMs();
    return pools.flatMap(({ uses, blocks, singles }) =>
      uses.map((use) => {
        const isIn = blocks.some(({ block, own }) => addressesIn(block, own).some((each) => each.equals(use.address)));
        const isHeld = !isOver && (isIn || singles.some((each) => each.equals(use.address)));
        const state = use.isLost ? 'lost' : isHeld ? 'confirmed' : 'unconfirmed';
        return { address: use.address, state };
      }),
    );
  }

  check(): void {
    const owners = new Map<string, string>();
    for (const host of this.all) {
      for (const address of this.secured(host)) {
        const other = owners.get(address);
        assert.equal(other, undefined, `${address} is held by ${other ?? ''} and ${host.name}`);
        owners.set(address, host.name);
      }
    }
  }

  /** Everybody comes back, and every container and network is removed. */
  async end(): Promise<void> {
    for (const host of this.all) await this.start(host);
    for (const host of this.all) {
      host.store.fate = () => 'answered';
      host.store.isAway = false;
    }
    await this.hosts.clock.advance(130_000 + 3000 * ORPHAN_SECONDS); // all that is late has come
    this.check();
    for (const host of this.all) {
      const { pools } = host;
      const held = this.heldBy(host);
      for (const { uses, shared } of pools.status().pools) {
        const orphans = uses.map(({ address }) => address.toString()).filter((address) => !held.has(address));
        assert.deepEqual(orphans, [], `${host.name} has what no container has`);
        for (const [address, own] of held) this.registers.get(host)?.set(ip(address), own, undefined);
        for (const { address } of [...uses, ...shared]) await this.hosts.settled(pools.releaseAddress(POOL, address));
      }
      await this.hosts.settled(pools.releasePool(POOL));
    }
    await this.hosts.clock.advance(130_000);
    assert.deepEqual([...this.hosts.values.texts], []);
    for (const host of this.all) assert.deepEqual(host.pools.status().pools, []);
    await this.hosts.close();
  }
}

function request(n: number): AddressRequest {
  return { kind: 'container', address: undefined, mac: mac(n), owner: `c${n}` };
}

describe('AddressPools on several hosts, whatever happens', function () {
  const runs = Number(process.env['ADDRESS_HISTORIES'] ?? 40);
  this.timeout(120_000 + runs * 1000);

  it('gives no address to two hosts at the same time, and leaves nothing behind', async () => {
    let given = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 2_000_000_000 }),
        fc.constantFrom(0, 0.05, 0.3),
        fc.array(step, { minLength: 40, maxLength: 120 }),
        async (seed, trouble, steps) => {
          const history = new History(seed, trouble);
          for (const host of history.all) await history.start(host);
          await history.hosts.clock.advance(100);
          for (const each of steps) {
            await history.carryOut(each);
            history.check();
          }
          await history.end();
          given += history.given;
        },
      ),
      { numRuns: runs, endOnFailure: true },
    );
    assert.ok(given > runs, `${given} addresses were given`);
  });
});
