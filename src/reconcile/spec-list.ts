import type { Steps } from '../pace.js';
import type { Kinds, LISTS, LinkSpec, ObjectKind } from './desired.js';
import type { ObjectKey } from './object-key.js';

/** Specifications of one kind by key. Where several have the same key, one of them counts and the others wait. */
export class SpecList<Spec> {
  private readonly byKey = new Map<ObjectKey, Spec>();
  private readonly waiting = new Map<ObjectKey, readonly Spec[]>();

  /** @param kind - how specifications are told apart, and compared. */
  constructor(private readonly kind: { keyOf(spec: Spec): ObjectKey; isSame(a: Spec, b: Spec): boolean }) {}

  get size(): number {
    return this.byKey.size;
  }

  get(key: ObjectKey): Spec | undefined {
    return this.byKey.get(key);
  }

  has(key: ObjectKey): boolean {
    return this.byKey.has(key);
  }

  entries(): IterableIterator<[ObjectKey, Spec]> {
    return this.byKey.entries();
  }

  values(): IterableIterator<Spec> {
    return this.byKey.values();
  }

  /**
   * Takes some specifications out and others in, one by one.
   *
   * @param removed - the very objects that were added before.
   * @param changed - gets the keys for which now another specification counts.
   */
  *update(removed: readonly Spec[], added: readonly Spec[], changed: Set<ObjectKey>): Steps<void> {
    const before = new Map<ObjectKey, Spec | undefined>();
    for (const spec of removed) {
      const key = this.kind.keyOf(spec);
      if (!before.has(key)) before.set(key, this.byKey.get(key));
      this.remove(key, spec);
      yield;
    }
    for (const spec of added) {
      const key = this.kind.keyOf(spec);
      if (!before.has(key)) before.set(key, this.byKey.get(key));
      this.add(key, spec);
      yield;
    }
    for (const [key, old] of before) {
      yield;
      const now = this.byKey.get(key);
      if (old === now) continue;
      // An equal one changes nothing, for those who compare objects either.
      if (old !== undefined && now !== undefined && this.kind.isSame(old, now)) this.byKey.set(key, old);
      else changed.add(key);
    }
  }

  private add(key: ObjectKey, spec: Spec): void {
    if (this.byKey.has(key)) this.waiting.set(key, [...(this.waiting.get(key) ?? []), spec]);
    else this.byKey.set(key, spec);
  }

  private remove(key: ObjectKey, spec: Spec): void {
    if (this.waiting.size === 0) {
      this.byKey.delete(key);
      return;
    }
    const waiting = this.waiting.get(key) ?? [];
    const at = waiting.indexOf(spec);
    const rest = at < 0 ? waiting.slice(1) : waiting.toSpliced(at, 1);
    if (rest.length === 0) this.waiting.delete(key);
    else this.waiting.set(key, rest);
    if (at >= 0) return;
    const [heir] = waiting;
    if (heir === undefined) this.byKey.delete(key);
    else this.byKey.set(key, heir);
  }
}

/** The desired objects of all kinds, found by key. */
export type SpecLists = { readonly [K in ObjectKind as (typeof LISTS)[K]]: SpecList<Kinds[K]> };

/** What is desired, as those see it who compare the kernel with it. */
export interface DesiredObjects extends SpecLists {
  linkNamed(device: string): LinkSpec | undefined;
  /** Whether a desired object is, or lies on, the device of that name. */
  refersTo(device: string): boolean;
  /** Whether there are addresses that this host is to answer for on the device of that name. */
  isProxying(device: string): boolean;
}
