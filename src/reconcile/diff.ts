import type { Steps } from '../pace.js';
import type { ActualState } from './actual.js';
import { LISTS } from './desired.js';
import { KERNEL_KINDS, KERNEL_OBJECT_KINDS } from './kinds/table.js';
import { type ObjectKey, kindOf } from './object-key.js';
import type { KernelObjectKind } from './operation.js';
import { type Plan, type PlanInput, Planner } from './planner.js';
import type { SpecList } from './spec-list.js';

/** Input of {@link diff}. */
export interface DiffInput extends PlanInput {
  /** Look only at these objects, none of which is a device. Default everything. */
  readonly keys?: Iterable<ObjectKey>;
}

/**
 * What has to be done so that the kernel looks as desired, object by object. Pure; linear in the number of objects looked
 * at; what changes meanwhile may or may not be part of the plan.
 *
 * @remarks
 * - A device whose fixed attributes differ is deleted and made again; what lay on it is then made again as well.
 * - A route that is ours takes the place of another that is ours in one step, so that no packet finds none. A route of
 *   flannel's (protocol `boot`) that leads the same way is taken over likewise. One that leads the same way but was made
 *   by an administrator or a routing daemon is as good as ours and left alone. Any other in its place is a conflict.
 */
export function* diff(input: DiffInput): Steps<Plan> {
  const planner = new Planner(input);
  if (input.keys === undefined) {
    for (const kind of KERNEL_OBJECT_KINDS) yield* planAll(planner, kind);
  } else {
    for (const key of input.keys) {
      const kind = kindOf(key);
      if (kind !== 'tunnel') planOne(planner, kind, key);
      yield;
    }
  }
  return planner.plan();
}

/** A kind of object as it looks to those who handle all kinds alike. */
interface AnyKind {
  presentKeys(actual: ActualState): Iterable<ObjectKey>;
  plan(planner: Planner, key: ObjectKey, spec: unknown): void;
}

function* planAll(planner: Planner, kind: KernelObjectKind): Steps<void> {
  const module: AnyKind = KERNEL_KINDS[kind];
  const specs: SpecList<unknown> = planner.desired[LISTS[kind]];
  for (const [key, spec] of specs.entries()) {
    module.plan(planner, key, spec);
    yield;
  }
  for (const key of module.presentKeys(planner.actual)) {
    if (!specs.has(key)) module.plan(planner, key, undefined);
    yield;
  }
}

function planOne(planner: Planner, kind: KernelObjectKind, key: ObjectKey): void {
  const module: AnyKind = KERNEL_KINDS[kind];
  module.plan(planner, key, planner.desired[LISTS[kind]].get(key));
}
