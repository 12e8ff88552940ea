import { readFile, readdir, rename, rm, rmdir } from 'node:fs/promises';
import path from 'node:path';
import { OverlayError, describeError, isOverlayError } from '../errors.js';
import { writeFileAtomically } from '../sys/atomic-file.js';
import { errnoOf } from '../sys/errno.js';
import type { Systemctl } from '../systemd/systemctl.js';
import { DROP_IN, type DropInForm, VALUES_FILE, authorOf, formOf, formatDropIn, obstacleTo } from './drop-in.js';
import { parseEnvFile } from './env-file.js';
import { type UnitSetting, inForce, serviceSettings } from './unit-file.js';

const DOCKER = 'docker.service';

/** Restarts Docker when the values change. */
const FOLLOWER = 'tsflannel-docker.path';

/** Where a drop-in that somebody copied and perhaps changed is kept; systemd reads no file of that name. */
const SAVED_COPY = `${DROP_IN}.saved`;

/** Directories of the administrator, of the running system and of packages, as in systemd.unit(5). */
const UNIT_DIRECTORIES = ['/etc', '/run', '/usr/local/lib', '/usr/lib', '/lib'].map((top) => `${top}/systemd/system`);

/** What a change of Docker's unit came to. */
export interface DockerChange {
  /** What was done, one sentence each; empty if everything was so already. */
  readonly changes: readonly string[];
  /** What the operator has to do for it to take effect: commands with the reason behind them. */
  readonly needed: readonly string[];
}

/** What `docker status` tells. */
export interface DockerState {
  readonly dropIn: {
    readonly path: string;
    /** `other` is a file of this name that we did not write. */
    readonly author: 'program' | 'copy' | 'other' | null;
    readonly form: DropInForm | null;
  };
  /** Whether {@link FOLLOWER} is enabled. */
  readonly isFollowing: boolean;
  readonly isRunning: boolean;
  /** What is to be done, with the reason; empty if nothing. */
  readonly problems: readonly string[];
}

/** A value that Docker runs with, and what it would get at its next start. */
export interface ValueChange {
  readonly name: string;
  readonly from: string;
  readonly to: string;
}

/** What the running dockerd has of ours. */
interface RunningValues {
  readonly form: DropInForm | undefined;
  readonly changes: readonly ValueChange[];
}

/** Docker's unit as its files say now, whether systemd has read them or not. */
interface DockerUnit {
  readonly mainPid: number;
  /** Without {@link DROP_IN}. */
  readonly settings: readonly UnitSetting[];
}

/** `docker.service` of a host and what tsflanneld adds to it. Needs root for changes and for what Docker runs with. */
export class DockerService {
  /** @param root - put before every path; a directory of its own in tests. */
  constructor(
    private readonly systemctl: Systemctl,
    private readonly root = '',
  ) {}

  /**
   * Lets Docker take its bridge's address and MTU from the overlay. Does nothing where that is so already.
   *
   * @param options.isFollowing - also restart Docker by itself when the values change.
   * @throws {@link OverlayError} `ERR_DOCKER_UNIT` if there is no such unit, or if somebody else's settings stand against
   * it; nothing has been changed then. `ERR_SYSTEMD`, `ERR_UNSAFE_PATH`.
   */
  async enable(options: { readonly form: DropInForm; readonly isFollowing: boolean }): Promise<DockerChange> {
    const unit = await this.unit();
    const before = await this.text(DROP_IN);
    if (before !== '' && authorOf(before) === 'other') throw foreign('change');
    const command = inForce(unit.settings, 'ExecStart').at(-1);
    if (command === undefined) throw refused('it has no ExecStart=', `look at it with systemctl cat ${DOCKER}`);
    const obstacle = obstacleTo(
      unit.settings,
      await this.environmentFiles(unit),
      await this.text('/etc/docker/daemon.json'),
    );
    if (obstacle !== undefined) throw refused(obstacle.what, obstacle.hint);

    const changes: string[] = [];
    const text = formatDropIn(options.form, command.value);
    if (text !== before) {
      if (authorOf(before) === 'copy') changes.push(await this.saveCopy());
      await changing(writeFileAtomically(this.place(DROP_IN), text));
      changes.push(`wrote ${DROP_IN}`);
      await this.systemctl(['daemon-reload']);
    }
    if (options.isFollowing && !(await this.isFollowing())) {
      await this.systemctl(['enable', '--now', '--quiet', FOLLOWER]);
      changes.push(`enabled ${FOLLOWER}`);
    }
    return { changes, needed: await this.neededFor(options.form, unit) };
  }

  /**
   * Takes away what {@link enable} did. Does nothing where that is so already.
   *
   * @throws {@link OverlayError} `ERR_DOCKER_UNIT` if the drop-in is somebody else's, `ERR_SYSTEMD`.
   */
  async disable(): Promise<DockerChange> {
    const before = await this.text(DROP_IN);
    const author = before === '' ? undefined : authorOf(before);
    if (author === 'other') throw foreign('remove');
    const changes: string[] = [];
    if (await this.isFollowing()) {
      await this.systemctl(['disable', '--now', '--quiet', FOLLOWER]);
      // It may be waiting for its moment.
      await this.systemctl(['stop', FOLLOWER.replace('.path', '.service')]);
      changes.push(`disabled ${FOLLOWER}`);
    }
    if (author !== undefined) {
      if (author === 'copy') {
        changes.push(await this.saveCopy());
      } else {
        await changing(rm(this.place(DROP_IN)));
        changes.push(`removed ${DROP_IN}`);
      }
      await this.removeIfEmpty(path.dirname(DROP_IN));
      await this.systemctl(['daemon-reload']);
    }
    const { mainPid } = await this.properties();
    const isPlain = mainPid === 0 || (await this.running(mainPid)).form === undefined;
    const isRestartNeeded = !isPlain && formOf(await this.settings()) === undefined;
    return {
      changes,
      needed: isRestartNeeded ? ["systemctl restart docker: until then it keeps the overlay's addresses"] : [],
    };
  }

  /** What holds now, and what is to be done about it. */
  async state(): Promise<DockerState> {
    const unit = await this.unit();
    const text = await this.text(DROP_IN);
    const author = text === '' ? null : authorOf(text);
    const own = formOf(serviceSettings(DROP_IN, text));
    const form = own ?? formOf(unit.settings) ?? null;
    const problems: string[] = [];
    if (author === 'program' && own !== undefined) {
      const command = inForce(unit.settings, 'ExecStart').at(-1)?.value ?? '';
      if (formatDropIn(own, command) !== text) {
        problems.push(
          `tsflannelctl docker enable --form=${own}: ${DOCKER} starts another command than when this was done`,
        );
      }
    }
    if (form !== null) problems.push(...(await this.neededFor(form, unit)));
    return {
      dropIn: { path: DROP_IN, author, form },
      isFollowing: await this.isFollowing(),
      isRunning: unit.mainPid !== 0,
      problems,
    };
  }

  /**
   * What the running Docker has otherwise than it would get now.
   *
   * @returns undefined if Docker does not run.
   * @throws {@link OverlayError} `ERR_DOCKER_UNIT` if it takes nothing from tsflanneld.
   */
  async pendingChanges(): Promise<readonly ValueChange[] | undefined> {
    const { mainPid } = await this.properties();
    if (mainPid === 0) return undefined;
    const { form, changes } = await this.running(mainPid);
    if (form === undefined) {
      throw refused(
        'it runs with nothing from tsflanneld',
        'run tsflannelctl docker enable, then systemctl restart docker',
      );
    }
    return changes;
  }

  /** Restarts Docker, unless it has been stopped meanwhile. */
  async restart(): Promise<void> {
    await this.systemctl(['try-restart', DOCKER]);
  }

  /** The unit file or drop-in by which Docker needs this file at its next start; undefined if there is none. */
  async readerOf(file: string): Promise<string | undefined> {
    const settings = inForce(await this.settings(), 'EnvironmentFile');
    return settings.find(({ value }) => value === file)?.file;
  }

  /** What Docker still needs to run with the values of a form. */
  private async neededFor(form: DropInForm, { mainPid }: DockerUnit): Promise<readonly string[]> {
    const file = VALUES_FILE[form];
    if ((await this.text(file)) === '') {
      return [`systemctl enable --now tsflanneld: Docker does not start before ${file} is there`];
    }
    const needed: string[] = [];
    // Of the two files only subnet.env says it; the options in the other one follow it.
    if (parseEnvFile(await this.text(file)).get('FLANNEL_IPMASQ') === 'false') {
      needed.push('tsflannelctl docker enable --form=docker-opts: the daemon does not masquerade, and so nobody would');
    }
    if (mainPid === 0) return needed;
    const running = await this.running(mainPid);
    if (running.form === form && running.changes.length === 0) return needed;
    const what =
      running.form === form ? running.changes.map(describeChange).join(', ') : `it runs without the values of ${file}`;
    return [...needed, `systemctl restart docker: ${what}; that stops its containers unless it has "live-restore"`];
  }

  private async running(pid: number): Promise<RunningValues> {
    const environment = new Map(
      (await this.text(`/proc/${pid}/environ`)).split('\0').map((line) => {
        const at = line.indexOf('=');
        return [line.slice(0, at), line.slice(at + 1)];
      }),
    );
    const form = environment.has('FLANNEL_SUBNET')
      ? 'subnet-env'
      : environment.has('DOCKER_OPTS') && /--bip=/.test(environment.get('DOCKER_OPTS') ?? '')
        ? 'docker-opts'
        : undefined;
    if (form === undefined) return { form, changes: [] };
    const wanted = parseEnvFile(await this.text(VALUES_FILE[form]));
    const names = form === 'subnet-env' ? ['FLANNEL_SUBNET', 'FLANNEL_MTU'] : ['DOCKER_OPTS'];
    const changes = names.flatMap((name) => {
      const [from = '', to = ''] = [environment.get(name)?.trim(), wanted.get(name)?.trim()];
      return to === '' || from === to ? [] : [{ name, from, to }];
    });
    return { form, changes };
  }

  private async unit(): Promise<DockerUnit> {
    const { loadState, mainPid } = await this.properties();
    if (loadState === 'masked') throw refused('it is masked', `run systemctl unmask ${DOCKER} first`);
    if (loadState !== 'loaded') throw refused('there is no such unit', 'install Docker first');
    return { mainPid, settings: (await this.settings()).filter(({ file }) => file !== DROP_IN) };
  }

  private async properties(): Promise<{ readonly loadState: string | undefined; readonly mainPid: number }> {
    const printed = parseEnvFile(await this.systemctl(['show', '--property=LoadState,MainPID', DOCKER]));
    return { loadState: printed.get('LoadState'), mainPid: Number(printed.get('MainPID') ?? 0) };
  }

  /**
   * What the unit and its drop-ins say, in the order in which they count: of files of one name that of the first
   * directory, drop-ins by name.
   *
   * @remarks Read from the files, since systemd does not notice the first drop-in of a unit before `daemon-reload`.
   */
  private async settings(): Promise<readonly UnitSetting[]> {
    const files = new Map<string, string>();
    for (const directory of UNIT_DIRECTORIES) {
      const names = (await this.namesIn(`${directory}/${DOCKER}.d`)).filter((name) => name.endsWith('.conf'));
      for (const name of names) if (!files.has(name)) files.set(name, `${directory}/${DOCKER}.d/${name}`);
    }
    const dropIns = [...files].sort(([left], [right]) => (left < right ? -1 : 1)).map(([, file]) => file);
    const units = await Promise.all(
      UNIT_DIRECTORIES.map(async (directory) => {
        const file = `${directory}/${DOCKER}`;
        return serviceSettings(file, await this.text(file));
      }),
    );
    const settings = [...(units.find(({ length }) => length > 0) ?? [])];
    for (const file of dropIns) settings.push(...serviceSettings(file, await this.text(file)));
    return settings;
  }

  private async isFollowing(): Promise<boolean> {
    return (await this.systemctl(['show', '--property=UnitFileState', '--value', FOLLOWER])).trim() === 'enabled';
  }

  private async environmentFiles({ settings }: DockerUnit): Promise<(file: string) => string> {
    const files = inForce(settings, 'EnvironmentFile').map(({ value }) => value.replace(/^-/, ''));
    const texts = new Map<string, string>();
    for (const file of files) texts.set(file, await this.text(file));
    return (file) => texts.get(file) ?? '';
  }

  private async saveCopy(): Promise<string> {
    await changing(rename(this.place(DROP_IN), this.place(SAVED_COPY)));
    return `renamed ${DROP_IN}, a copy made by hand, to ${path.basename(SAVED_COPY)}`;
  }

  private async removeIfEmpty(directory: string): Promise<void> {
    if ((await this.namesIn(directory)).length === 0) await rmdir(this.place(directory));
  }

  private async namesIn(directory: string): Promise<readonly string[]> {
    try {
      return await readdir(this.place(directory));
    } catch (error) {
      if (isMissing(error)) return [];
      throw error;
    }
  }

  /** Empty if there is no such file. */
  private async text(file: string): Promise<string> {
    try {
      return await readFile(this.place(file), 'utf8');
    } catch (cause) {
      if (isMissing(cause)) return '';
      throw refused(`${file} cannot be read: ${describeError(cause)}`, 'run this as root', cause);
    }
  }

  private place(file: string): string {
    return `${this.root}${file}`;
  }
}

/** `FLANNEL_MTU was 1450 and is now 1500` */
export function describeChange({ name, from, to }: ValueChange): string {
  return `${name} was '${from}' and is now '${to}'`;
}

async function changing<T>(change: Promise<T>): Promise<T> {
  try {
    return await change;
  } catch (cause) {
    if (isOverlayError(cause)) throw cause;
    throw refused(`${DROP_IN} cannot be changed: ${describeError(cause)}`, 'run this as root', cause);
  }
}

function isMissing(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR'].includes(errnoOf(error) ?? '');
}

function foreign(verb: string): OverlayError {
  return new OverlayError('ERR_DOCKER_UNIT', `cannot ${verb} ${DROP_IN}: somebody else wrote it`, {
    hint: 'look at it, move it away and run this again',
  });
}

function refused(what: string, hint: string, cause?: unknown): OverlayError {
  return new OverlayError('ERR_DOCKER_UNIT', `cannot use ${DOCKER}: ${what}`, { cause, hint });
}
