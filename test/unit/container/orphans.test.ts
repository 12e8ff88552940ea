import assert from 'node:assert/strict';
import type { AddressPoolsOptions } from '../../../src/container/address-pools.js';
import type { AddressRequest, AddressUse } from '../../../src/container/addresses.js';
import { formatPoolId } from '../../../src/container/pool-id.js';
import { OverlayError } from '../../../src/errors.js';
import type { MacAddress } from '../../../src/ip/mac.js';
import { type AddressHost, AddressHosts, BOOK } from '../../support/address-hosts.js';
import { ip, mac, net } from '../../support/builders.js';
import { FakeRegister } from '../../support/fake-register.js';

const SUBNET = net('10.10.10.0/24');
const LAN = formatPoolId({ name: undefined, subnet: SUBNET, range: SUBNET });
const FIRST = '10.10.10.2';

/** What is documented. */
const ABANDONED_MS = 20_000;
const ORPHAN_MS = 600_000;

describe('addresses that no container has', () => {
  let hosts: AddressHosts;
  let register: FakeRegister;
  let host: AddressHost;
  let onNetwork: MacAddress | undefined;

  beforeEach(async () => {
    hosts = new AddressHosts();
    register = new FakeRegister();
    onNetwork = undefined;
    host = await join('a');
  });

  afterEach(() => hosts.close());

  async function join(name: string, options: Partial<AddressPoolsOptions> = {}): Promise<AddressHost> {
    const made = await hosts.start(name, {
      register: () => register,
      probe: () => Promise.resolve(onNetwork),
      ttlSeconds: 86_400,
      ...options,
    });
    await hosts.settled(made.pools.requestPool({ pool: SUBNET, range: undefined, name: undefined, family: 4 }));
    return made;
  }

  async function give(n: number, changes: Partial<AddressRequest> = {}): Promise<string> {
    const own = { kind: 'container', address: undefined, mac: mac(n), owner: `c${n}`, register: register.id } as const;
    return (await hosts.settled(host.pools.requestAddress(LAN, { ...own, ...changes }))).toString();
  }

  /** What a network driver does when the interface is made, joins, or goes. */
  function note(address: string, n: number, state: 'joined' | 'made' | undefined): void {
    register.set(ip(address), mac(n), state);
    host.pools.review();
  }

  const uses = (): readonly AddressUse[] => host.pools.status().pools.flatMap((pool) => pool.uses);
  const held = (): readonly string[] => uses().map(({ address }) => address.toString());
  const free = (address: string, isForced = false): Promise<string | undefined> =>
    hosts.settled(host.pools.freeAddress(LAN, ip(address), isForced));

  describe('are taken back after ten minutes', () => {
    it('if an interface never came', async () => {
      await give(1);
      await hosts.clock.advance(ORPHAN_MS - 1000);
      assert.deepEqual(held(), [FIRST]);
      await hosts.clock.advance(2000);
      assert.deepEqual(held(), []);
      const { orphaned, released } = host.pools.status().counters;
      assert.deepEqual([orphaned, released], [1, 1]);
    });

    it('if its interface has gone, counted from then', async () => {
      await give(1);
      note(FIRST, 1, 'made');
      note(FIRST, 1, 'joined');
      await hosts.clock.advance(2 * ORPHAN_MS);
      assert.deepEqual(held(), [FIRST]);
      note(FIRST, 1, undefined);
      await hosts.clock.advance(ORPHAN_MS - 1000);
      assert.deepEqual(held(), [FIRST]);
      await hosts.clock.advance(2000);
      assert.deepEqual(held(), []);
    });

    it('counted from the start of the daemon, however old they are', async () => {
      await give(1);
      await hosts.clock.advance(ORPHAN_MS - 1000);
      host.crash();
      await host.start();
      host.pools.review();
      await hosts.clock.advance(ORPHAN_MS - 1000);
      assert.deepEqual(held(), [FIRST]);
      await hosts.clock.advance(2000);
      assert.deepEqual(held(), []);
    });

    it('counted from when the same container asked again', async () => {
      await give(1);
      await hosts.clock.advance(ORPHAN_MS - 1000);
      assert.equal(await give(1), FIRST);
      await hosts.clock.advance(ORPHAN_MS - 1000);
      assert.deepEqual(held(), [FIRST]);
    });

    it('and the network is left, if Docker has given it up meanwhile', async () => {
      await give(1);
      await hosts.settled(host.pools.releasePool(LAN));
      await hosts.clock.advance(ORPHAN_MS + 10_000);
      assert.deepEqual(host.pools.status().pools, []);
      assert.deepEqual([...hosts.values.texts], []);
    });

    it('and given again last', async () => {
      await give(1);
      await hosts.clock.advance(ORPHAN_MS + 1000);
      assert.notEqual(await give(2), FIRST);
    });

    it('once the book can be written again', async () => {
      await give(1);
      host.files.writeErrno = 'ENOSPC';
      await hosts.clock.advance(ORPHAN_MS + 1000);
      assert.deepEqual(held(), [FIRST]);
      host.files.writeErrno = undefined;
      await hosts.clock.advance(60_000);
      assert.deepEqual(held(), []);
    });
  });

  describe('stay', () => {
    it('if nobody was to see what becomes of them, as under Docker’s own drivers or in attached namespaces', async () => {
      await give(1, { register: undefined });
      await hosts.clock.advance(2 * ORPHAN_MS);
      assert.deepEqual(held(), [FIRST]);
      assert.equal(uses()[0]?.abandonedSinceMs, undefined);
    });

    it('if what was known of interfaces is lost', async () => {
      await give(1);
      register.id = 'another one';
      host.pools.review();
      await hosts.clock.advance(2 * ORPHAN_MS);
      assert.deepEqual(held(), [FIRST]);
    });

    it('if the book was lost and etcd alone remembers them', async () => {
      await give(1);
      await hosts.rest();
      host.crash();
      host.files.texts.delete(BOOK);
      await host.start();
      await hosts.clock.advance(2 * ORPHAN_MS);
      assert.deepEqual(held(), [FIRST]);
    });

    it('as long as there is an interface that Docker has not joined yet, as when it is stopped for a week', async () => {
      await give(1);
      note(FIRST, 1, 'made');
      await hosts.clock.advance(20 * ORPHAN_MS);
      assert.deepEqual(held(), [FIRST]);
    });
  });

  it('are told of after 20 s, with the time since when', async () => {
    await give(1);
    const sinceMs = hosts.clock.wallMs();
    await hosts.clock.advance(ABANDONED_MS - 1000);
    assert.equal(uses()[0]?.abandonedSinceMs, undefined);
    await hosts.clock.advance(2000);
    const told = uses()[0]?.abandonedSinceMs ?? 0;
    assert.ok(Math.abs(told - sinceMs) < 1000, String(told - sinceMs));
    note(FIRST, 1, 'joined');
    assert.equal(uses()[0]?.abandonedSinceMs, undefined);
  });

  it('are given to another container that asks by name after 20 s, and are the first one’s no more', async () => {
    const wanted = { address: ip('10.10.10.9') };
    await give(1, wanted);
    await assert.rejects(give(2, wanted), { code: 'ERR_ADDRESS_TAKEN' });
    await hosts.clock.advance(ABANDONED_MS);
    onNetwork = mac(99);
    await assert.rejects(give(2, wanted), { code: 'ERR_ADDRESS_TAKEN', message: /a machine on the network/ });
    onNetwork = undefined;
    assert.equal(await give(2, wanted), '10.10.10.9');
    assert.deepEqual(
      [mac(1), mac(2)].map((each) => host.pools.isGiven(ip('10.10.10.9'), each)),
      [false, true],
    );
    await hosts.clock.advance(ABANDONED_MS);
    note('10.10.10.9', 2, 'joined');
    await assert.rejects(give(3, wanted), { code: 'ERR_ADDRESS_TAKEN', message: /container c2/ });
  });

  it('are not given at all if whoever asked has gone before the answer', async () => {
    const other = await give(9);
    await hosts.rest();
    const write = host.files.write.bind(host.files);
    const asker = new AbortController();
    host.files.write = (...args) => {
      asker.abort(new OverlayError('ERR_PLUGIN_REQUEST', 'gone'));
      return write(...args);
    };
    const answer = host.pools.requestAddress(
      LAN,
      { kind: 'container', address: undefined, mac: mac(1), owner: 'c1', register: register.id },
      asker.signal,
    );
    await assert.rejects(hosts.settled(answer), /gone/);
    await hosts.rest();
    assert.deepEqual(held(), [other]);
  });

  it('do not become free by a late release while a container has them', async () => {
    await give(1);
    note(FIRST, 1, 'joined');
    await hosts.settled(host.pools.releaseAddress(LAN, ip(FIRST)));
    assert.deepEqual(held(), [FIRST]);
    note(FIRST, 1, undefined);
    await hosts.settled(host.pools.releaseAddress(LAN, ip(FIRST)));
    assert.deepEqual(held(), []);
  });

  describe('are freed by an operator', () => {
    const refusals: readonly (readonly [
      what: string,
      arrange: () => Promise<void> | void,
      why: RegExp,
      isForcedInVain?: boolean,
    ])[] = [
      ['a container has it', () => note(FIRST, 1, 'joined'), /an interface in a container or a namespace has it/, true],
      ['Docker has an interface for it', () => note(FIRST, 1, 'made'), /an interface was made for it/],
      ['it was given just now', () => {}, /given to c1, which may be about to get it/],
      ['nobody can tell', () => void (register.id = 'another'), /given to c1, and nobody can tell/],
      [
        'something answers for it',
        async () => {
          await hosts.clock.advance(ABANDONED_MS);
          onNetwork = mac(99);
        },
        new RegExp(`MAC address ${mac(99)} answers for it`),
      ],
    ];
    for (const [what, arrange, why, isForcedInVain = false] of refusals) {
      it(`unless ${what}${isForcedInVain ? '' : ', or if that is forced'}`, async () => {
        await give(1);
        await arrange();
        assert.match((await free(FIRST)) ?? '', why);
        assert.deepEqual(held(), [FIRST]);
        const forced = await free(FIRST, true);
        assert.equal(forced === undefined, !isForcedInVain);
        assert.deepEqual(held(), isForcedInVain ? [FIRST] : []);
      });
    }

    it('after 20 s, at once', async () => {
      await give(1);
      await hosts.clock.advance(ABANDONED_MS);
      assert.equal(await free(FIRST), undefined);
      assert.deepEqual(held(), []);
      assert.equal(host.pools.status().counters.orphaned, 1);
      assert.match((await free(FIRST)) ?? '', /no container of this host was given it/);
    });
  });

  it('are not given by a disk that hangs: there is an error in time, and what comes late is undone', async () => {
    const other = await give(9);
    await hosts.rest();
    const write = host.files.write.bind(host.files);
    let goOn = (): void => {};
    host.files.write = async (...args) => {
      await new Promise<void>((resolve) => (goOn = resolve));
      return write(...args);
    };
    const before = hosts.clock.monotonicMs();
    await assert.rejects(give(1), { code: 'ERR_ADDRESS_BOOK', message: /not done within 8000 ms/ });
    assert.ok(hosts.clock.monotonicMs() - before < 9000);
    host.files.write = write;
    goOn();
    await hosts.rest();
    assert.deepEqual(held(), [other]);
  });
});
