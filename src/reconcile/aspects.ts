import type { LinkAspect } from './operation.js';
import type { ObjectKey } from './object-key.js';

/** What of an object an operation is about: one attribute of a device, or the object as a whole. */
export type Aspect = LinkAspect | 'whole';

/** An object by its key or name as people are told of it, with the attribute if it is about one. */
export function describeAspect(object: string, aspect: Aspect): string {
  return aspect === 'whole' ? object : `${object} ${aspect}`;
}

/** Values by object and aspect. */
export class AspectMap<Value> {
  private readonly byKey = new Map<ObjectKey, Map<Aspect, Value>>();

  get size(): number {
    let size = 0;
    for (const aspects of this.byKey.values()) size += aspects.size;
    return size;
  }

  get(key: ObjectKey, aspect: Aspect): Value | undefined {
    return this.byKey.get(key)?.get(aspect);
  }

  has(key: ObjectKey, aspect: Aspect): boolean {
    return this.byKey.get(key)?.has(aspect) === true;
  }

  /** Whether there is a value for any aspect of the object. */
  hasObject(key: ObjectKey): boolean {
    return this.byKey.has(key);
  }

  set(key: ObjectKey, aspect: Aspect, value: Value): void {
    const aspects = this.byKey.get(key);
    if (aspects === undefined) this.byKey.set(key, new Map([[aspect, value]]));
    else aspects.set(aspect, value);
  }

  /** @returns whether it was there. */
  delete(key: ObjectKey, aspect: Aspect): boolean {
    const aspects = this.byKey.get(key);
    const wasThere = aspects?.delete(aspect) === true;
    if (aspects?.size === 0) this.byKey.delete(key);
    return wasThere;
  }

  *values(): Generator<Value> {
    for (const aspects of this.byKey.values()) yield* aspects.values();
  }
}
