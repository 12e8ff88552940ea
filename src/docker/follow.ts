import type { Clock } from '../clock.js';
import { OverlayError } from '../errors.js';
import { type DockerService, type ValueChange, describeChange } from './docker-service.js';

/** What {@link followChanges} works with. */
export interface FollowOptions {
  readonly docker: Pick<DockerService, 'pendingChanges' | 'restart'>;
  /** Writes docker_opts.env anew, for Docker's next start and for the comparison. */
  readonly refresh: () => void;
  /** Docker is restarted at a random moment within so many seconds; 0 is at once. */
  readonly windowSeconds: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly tell: (text: string) => void;
}

/**
 * Restarts Docker if it runs with other values than it would get now.
 *
 * @remarks A change of the network reaches every host within a second. A random delay on each keeps containers of all
 * hosts from stopping at the same time. Whatever happens during the wait or the restart is seen, since values are
 * compared again afterwards; systemd does not look at the path while the service runs.
 * @throws {@link OverlayError} `ERR_DOCKER_UNIT` if Docker takes nothing from tsflanneld, or keeps its values over a
 * restart; `ERR_SYSTEMD`.
 */
export async function followChanges(options: FollowOptions): Promise<void> {
  const { docker, windowSeconds, clock, signal, tell } = options;
  let hasWaited = windowSeconds === 0;
  let restartedFor: string | undefined;
  for (;;) {
    const what = (await look(options)).map(describeChange).join(', ');
    if (what === '') return;
    if (what === restartedFor) {
      throw new OverlayError('ERR_DOCKER_UNIT', `cannot let docker.service follow: after a restart still ${what}`, {
        hint: 'see what its unit does with these values: systemctl cat docker',
      });
    }
    if (!hasWaited) {
      const delaySeconds = Math.floor(clock.random() * windowSeconds);
      tell(
        `${what}: restarting docker.service in ${delaySeconds} s, at random within ${windowSeconds} s so that not all hosts do it at once (TSFLANNEL_DOCKER_WINDOW); "systemctl restart docker" does it now`,
      );
      await clock.sleep(delaySeconds * 1000, signal);
      hasWaited = true;
      continue; // somebody may have done it, or the values may have changed back or further
    }
    tell(`${what}: restarting docker.service`);
    await docker.restart();
    restartedFor = what;
    hasWaited = windowSeconds === 0;
  }
}

async function look({ docker, refresh, tell }: FollowOptions): Promise<readonly ValueChange[]> {
  refresh();
  const changes = await docker.pendingChanges();
  if (changes === undefined) tell('docker.service is not running: it will start with the values of now');
  else if (changes.length === 0) tell('docker.service runs with the values of now');
  return changes ?? [];
}
