import type { IWatchResponse } from 'etcd3/lib/rpc.js';
import type { Subscription } from '../lease/store.js';
import type { FollowContext } from './follow.js';
import { VALUES_RETRY_CAP_MS } from './follow-values.js';
import type { KeyRange } from './key-range.js';
import { keepFollowing, openSupervisedWatch } from './supervised-watch.js';

/**
 * Calls back whenever something in a range may have changed: after each event, and each time a watch was opened, since
 * events may have been missed before. Whoever is called looks for himself, so no revision has to be kept and compaction
 * does not matter.
 *
 * @param onChange - what it throws is logged and ends the stream, which is opened again.
 */
export function watchRange(context: FollowContext, range: Required<KeyRange>, onChange: () => void): Subscription {
  const closing = new AbortController();
  const { signal } = closing;
  const tell = (): void => {
    if (!signal.aborted) onChange();
  };
  const follow = async (): Promise<boolean> => {
    const take = ({ events }: IWatchResponse): void => {
      if (events.length > 0) tell();
    };
    const watch = await openSupervisedWatch(context, range, undefined, take, signal);
    try {
      tell();
      await watch.believe();
      return false;
    } finally {
      watch.close();
    }
  };
  void keepFollowing(context, signal, VALUES_RETRY_CAP_MS, follow, (error) =>
    context.log.warn('cannot follow values in etcd', { error }),
  );
  return { close: () => closing.abort() };
}
