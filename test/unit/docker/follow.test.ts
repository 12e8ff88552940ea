import assert from 'node:assert/strict';
import type { ValueChange } from '../../../src/docker/docker-service.js';
import { followChanges } from '../../../src/docker/follow.js';
import { FakeClock } from '../../support/fake-clock.js';
import { waitFor } from '../../support/wait.js';

/** A Docker whose values are wanted to be another MTU. */
class Engine {
  mtu = '1450';
  wanted = '1450';
  isRunning = true;
  restarts = 0;
  /** Whether a restart takes the wanted value over. */
  isFollowing = true;
  onRestart = (): void => {};

  pendingChanges(): Promise<readonly ValueChange[] | undefined> {
    if (!this.isRunning) return Promise.resolve(undefined);
    const { mtu, wanted } = this;
    return Promise.resolve(mtu === wanted ? [] : [{ name: 'FLANNEL_MTU', from: mtu, to: wanted }]);
  }

  restart(): Promise<void> {
    this.restarts++;
    if (this.isFollowing) this.mtu = this.wanted;
    this.onRestart();
    return Promise.resolve();
  }
}

describe('following the values of the overlay', () => {
  let docker: Engine;
  let clock: FakeClock;
  let said: string[];

  beforeEach(() => {
    docker = new Engine();
    clock = new FakeClock();
    said = [];
  });

  const follow = (windowSeconds: number, random = 0.5): Promise<void> =>
    followChanges({
      docker,
      refresh: () => undefined,
      windowSeconds,
      clock: Object.assign(clock, { random: () => random }),
      signal: new AbortController().signal,
      tell: (text) => said.push(text),
    });

  it('restarts Docker at a random moment within the window, and says when', async () => {
    docker.wanted = '1500';
    const done = follow(60, 0.5);
    await waitFor(() => said.length > 0, { what: 'the announcement' });
    assert.match(
      said[0] ?? '',
      /^FLANNEL_MTU was '1450' and is now '1500': restarting docker\.service in 30 s, .*within 60 s/,
    );
    await clock.advance(29_999);
    assert.equal(docker.restarts, 0);
    await clock.advance(1);
    await done;
    assert.equal(docker.restarts, 1);
  });

  it('restarts it at once with a window of 0', async () => {
    docker.wanted = '1500';
    await follow(0);
    assert.deepEqual(
      [docker.restarts, said],
      [
        1,
        [
          "FLANNEL_MTU was '1450' and is now '1500': restarting docker.service",
          'docker.service runs with the values of now',
        ],
      ],
    );
  });

  it('does not restart it where somebody else did during the wait', async () => {
    docker.wanted = '1500';
    const done = follow(60);
    await waitFor(() => said.length > 0, { what: 'the announcement' });
    docker.mtu = '1500';
    await clock.advance(30_000);
    await done;
    assert.equal(docker.restarts, 0);
  });

  it('takes the latest value after the wait, without another one', async () => {
    docker.wanted = '1500';
    const done = follow(60);
    await waitFor(() => said.length > 0, { what: 'the announcement' });
    docker.wanted = '1400';
    await clock.advance(30_000);
    await done;
    assert.deepEqual([docker.restarts, docker.mtu], [1, '1400']);
  });

  it('notices a change during the restart, since systemd does not', async () => {
    docker.wanted = '1500';
    docker.onRestart = () => {
      docker.wanted = '1400';
    };
    await follow(0);
    assert.deepEqual([docker.restarts, docker.mtu], [2, '1400']);
  });

  it('does not restart it again and again where that does not help', async () => {
    docker.wanted = '1500';
    docker.isFollowing = false;
    await assert.rejects(follow(0), /after a restart still FLANNEL_MTU was '1450' and is now '1500'/);
    assert.equal(docker.restarts, 1);
  });

  it('leaves a Docker alone that has its values, or does not run', async () => {
    await follow(60);
    docker.wanted = '1500';
    docker.isRunning = false;
    await follow(60);
    assert.equal(docker.restarts, 0);
    assert.match(said.join('\n'), /runs with the values of now\n.*is not running/);
  });
});
