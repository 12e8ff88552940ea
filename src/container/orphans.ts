import type { Clock } from '../clock.js';
import type { SavedUse } from './address-book.js';
import type { InterfaceRegister } from './addresses.js';

/**
 * After which an address without an interface counts as abandoned: whoever asks for it by name gets it then, and an
 * operator may free it. Between the address and the interface Docker asks for the address of the other family at most,
 * which is answered within 9 s.
 */
export const ABANDONED_MS = 20_000;

/**
 * Knows which addresses were given to containers that never came, or have gone without giving them back: an engine that is
 * killed has asked for an address before it writes anything down, and forgets a container before it gives the address
 * back; and what this daemon was about to answer when it was killed, nobody has heard.
 *
 * @remarks Only of addresses that were to turn up in the register that there is now. Those of other network drivers, of
 * namespaces that were attached by hand, of a register or a book that was lost are nobody's to judge.
 */
export class Orphans {
  readonly #sinceMs = new WeakMap<SavedUse, number>();

  constructor(
    private readonly clock: Clock,
    private readonly register: () => InterfaceRegister | undefined,
  ) {}

  /** Takes notice of which addresses have an interface now: after every change of either, and at the start. */
  review(uses: Iterable<SavedUse>): void {
    for (const use of uses) {
      if (!this.#isWithout(use)) this.#sinceMs.delete(use);
      else if (!this.#sinceMs.has(use)) this.#sinceMs.set(use, this.clock.monotonicMs());
    }
  }

  /** The address was asked for again: its time begins anew. */
  renew(use: SavedUse): void {
    if (this.#sinceMs.has(use)) this.#sinceMs.set(use, this.clock.monotonicMs());
  }

  /** For how many milliseconds an address has had no interface; undefined if it has one, or nobody can tell. */
  ageMs(use: SavedUse): number | undefined {
    const sinceMs = this.#sinceMs.get(use);
    return sinceMs === undefined || !this.#isWithout(use) ? undefined : this.clock.monotonicMs() - sinceMs;
  }

  /** Whether it can be told if an address has an interface. */
  isFollowed({ register }: SavedUse): boolean {
    return register !== undefined && register === this.register()?.id;
  }

  #isWithout(use: SavedUse): boolean {
    return this.isFollowed(use) && this.register()?.interfaceOf(use.address, use.mac) === undefined;
  }
}
