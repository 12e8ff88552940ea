import { ActualState } from './actual.js';
import type { Kernel } from './kernel.js';
import { KERNEL_KINDS, KERNEL_OBJECT_KINDS } from './kinds/table.js';
import type { Ownership } from './ownership.js';
import type { DesiredObjects } from './spec-list.js';

/**
 * Lists everything that can matter.
 *
 * @param former - what was known before; default nothing.
 * @throws {@link OverlayError} `ERR_NETLINK` or `ERR_SYSCTL`
 */
export async function readActual(
  kernel: Kernel,
  desired: DesiredObjects,
  ownership: Ownership,
  former?: ActualState,
): Promise<ActualState> {
  const actual = new ActualState(
    desired,
    ownership,
    kernel.defaultVxlanPort(),
    former?.setEndpoints,
    former?.formerValues,
  );
  for (const kind of KERNEL_OBJECT_KINDS) await KERNEL_KINDS[kind].read(kernel, actual);
  return actual;
}
