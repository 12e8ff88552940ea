import { open } from 'node:fs/promises';
import { type DaemonSettings, settingsOf } from '../config/daemon-settings.js';
import type { FlagValue } from '../config/flag-values.js';
import { FLAGS, parseCommandLine, textOf } from '../config/flags.js';
import { OverlayError, describeError, isOverlayError } from '../errors.js';
import { errnoOf } from '../sys/errno.js';
import { parseEnvironmentFile, splitWords } from '../systemd/environment-file.js';
import { readDaemonSettings } from './daemon-client.js';
import { AS_ROOT_HINT, isRefused } from './rights.js';

/** Variable whose words the unit puts behind the program. */
const ARGUMENTS_VARIABLE = 'TSFLANNELD_OPTS';

const OTHERS_MAY_READ = 0o004;

/** What a command was not given, as the daemon of this host has it. */
export interface FoundSettings {
  /** Values as they would be written on a command line, by flag. */
  readonly flags: ReadonlyMap<string, string>;
  /** Whose they are, as in `settings of the running daemon`. */
  readonly origin: string;
  /** Whether it was left to them where etcd is. */
  readonly isStoreFound: boolean;
  /** What a person should know without asking. */
  readonly notes: readonly string[];
  /** Why it is not known how to reach etcd, for whoever has to. */
  readonly storeProblem: OverlayError | undefined;
}

/** What {@link findSettings} goes by. */
export interface SettingsRequest {
  /** Flags that the command takes. */
  readonly wanted: ReadonlySet<string>;
  /** Flags among them that were given; they are not looked for. */
  readonly given: ReadonlyMap<string, FlagValue>;
  /** The environment file of the daemon's unit. */
  readonly environmentFile: string;
  readonly signal: AbortSignal;
}

/**
 * Finds the settings of the daemon on this host: its own answer on its socket, else the environment file of its unit.
 *
 * @remarks User and password belong to the endpoints that somebody set them for: with other endpoints they have to be
 * given as well, so that no password goes where its owner has not sent it.
 */
export async function findSettings(request: SettingsRequest): Promise<FoundSettings> {
  const { wanted, given, environmentFile, signal } = request;
  const unit = await readUnitFile(environmentFile);
  const namedSocket = given.get('status-socket') ?? unit.settings?.flags['status-socket'];
  const socket = textOf(namedSocket ?? FLAGS['status-socket'].initial);
  const daemon = await askDaemon(socket, signal);
  const { flags, withheld } = daemon.settings ?? unit.settings ?? { flags: {}, withheld: [] };
  const isHere = given.has('etcd-endpoints');
  const found = new Map(Object.entries(flags).filter(([name]) => wanted.has(name) && !given.has(name)));
  // In a container the daemon knows its socket by another name.
  if (found.has('status-socket')) found.set('status-socket', socket);
  const notes = differences(request, unit, daemon);

  let storeProblem = isHere || daemon.settings !== undefined ? undefined : (unit.problem ?? deniedBy(daemon, unit));
  if (isHere) found.delete('etcd-username');
  if (isHere || ['etcd-username', 'etcd-password', 'etcd-password-file'].some((name) => given.has(name))) {
    found.delete('etcd-password-file');
  } else if (withheld.includes('etcd-password') && wanted.has('etcd-password')) {
    const isTheirs = unit.settings?.flags['etcd-username'] === flags['etcd-username'];
    if (unit.password === undefined || !isTheirs) storeProblem = passwordUnknown(flags['etcd-username'] ?? '');
    else found.set('etcd-password', unit.password);
    if (unit.password !== undefined && unit.isReadByAll) {
      notes.push(`everybody on this host may read the password in ${unit.path}; run chmod 600 ${unit.path}`);
    }
  }
  return { flags: found, origin: describeOrigin(unit, daemon), isStoreFound: !isHere, notes, storeProblem };
}

/** Those settings of the daemon's unit that its environment file makes. */
interface UnitFile {
  readonly path: string;
  readonly isThere: boolean;
  readonly settings: DaemonSettings | undefined;
  readonly password: string | undefined;
  readonly isReadByAll: boolean;
  /** Why it cannot be used although it is there. */
  readonly problem: OverlayError | undefined;
}

async function readUnitFile(path: string): Promise<UnitFile> {
  const nothing = { path, isThere: true, settings: undefined, password: undefined, isReadByAll: false };
  try {
    const handle = await open(path);
    try {
      const { mode } = await handle.stat();
      const { options, given } = parseUnitFile(await handle.readFile('utf8'));
      // The service manager starts the daemon in the root directory.
      const { flags, withheld } = settingsOf(options, '/');
      const isSet = (name: string): boolean => given.has(name);
      return {
        ...nothing,
        settings: {
          flags: Object.fromEntries(Object.entries(flags).filter(([name]) => isSet(name))),
          withheld: withheld.filter(isSet),
        },
        password: options.etcdPassword,
        isReadByAll: (mode & OTHERS_MAY_READ) !== 0,
        problem: undefined,
      };
    } finally {
      await handle.close();
    }
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return { ...nothing, isThere: false, problem: undefined };
    return { ...nothing, problem: unusable(path, cause) };
  }
}

/** @throws {@link OverlayError} `ERR_FLAG` if the daemon would refuse to start with that. */
function parseUnitFile(text: string): Extract<ReturnType<typeof parseCommandLine>, { kind: 'run' }> {
  const variables = Object.fromEntries(parseEnvironmentFile(text));
  const commandLine = parseCommandLine(splitWords(variables[ARGUMENTS_VARIABLE] ?? ''), variables);
  if (commandLine.kind === 'run') return commandLine;
  throw new OverlayError('ERR_FLAG', `${ARGUMENTS_VARIABLE} asks for ${commandLine.kind}, which starts no daemon`);
}

function unusable(path: string, cause: unknown): OverlayError {
  if (isRefused(cause)) {
    return new OverlayError('ERR_NOT_PRIVILEGED', `cannot find out how to reach etcd: only root may read ${path}`, {
      cause,
      hint: `${AS_ROOT_HINT}, or give --etcd-endpoints`,
    });
  }
  return new OverlayError('ERR_FILE', `cannot use the daemon's settings in ${path}: ${describeError(cause)}`, {
    cause,
    hint: 'fix that file, as the daemon does not start with it, or give --etcd-endpoints',
  });
}

/** What came of asking the daemon: `mute` is one that does not tell, as one that hangs or of an earlier release. */
interface DaemonAnswer {
  readonly state: 'told' | 'absent' | 'denied' | 'mute';
  readonly settings: DaemonSettings | undefined;
}

async function askDaemon(socket: string, signal: AbortSignal): Promise<DaemonAnswer> {
  try {
    return { state: 'told', settings: await readDaemonSettings(socket, signal) };
  } catch (error) {
    signal.throwIfAborted();
    if (isOverlayError(error, 'ERR_NOT_PRIVILEGED')) return { state: 'denied', settings: undefined };
    const isListening = isOverlayError(error) && error.context['isListening'] === true;
    return { state: isListening ? 'mute' : 'absent', settings: undefined };
  }
}

function deniedBy({ state }: DaemonAnswer, { isThere, path }: UnitFile): OverlayError | undefined {
  if (state !== 'denied' || isThere) return undefined;
  return new OverlayError(
    'ERR_NOT_PRIVILEGED',
    `cannot find out how to reach etcd: only root may ask the running daemon, and there is no ${path}`,
    { hint: `${AS_ROOT_HINT}, or give --etcd-endpoints` },
  );
}

function passwordUnknown(user: string): OverlayError {
  return new OverlayError(
    'ERR_ETCD_AUTH',
    `cannot log in to etcd as "${user}": the running daemon does not tell its password`,
    { hint: 'give --etcd-password-file, or FLANNELD_ETCD_PASSWORD in the environment' },
  );
}

/** Tells of a file that was changed after the daemon had read it. */
function differences({ wanted, given }: SettingsRequest, unit: UnitFile, daemon: DaemonAnswer): string[] {
  const [theirs, running] = [unit.settings?.flags ?? {}, daemon.settings?.flags];
  if (running === undefined) return [];
  const names = Object.keys(theirs).filter(
    (name) => name !== 'status-socket' && wanted.has(name) && !given.has(name) && theirs[name] !== running[name],
  );
  if (names.length === 0) return [];
  const list = names.map((name) => `--${name}`).join(', ');
  return [
    `the running daemon has another ${list} than ${unit.path} and is followed; it takes over the file when it is restarted`,
  ];
}

function describeOrigin({ path, isThere, settings }: UnitFile, { state }: DaemonAnswer): string {
  const reasons = {
    told: '',
    absent: 'no daemon runs here',
    denied: 'only root may ask the running daemon',
    mute: 'the running daemon does not answer',
  };
  if (state === 'told') return 'settings of the running daemon';
  if (settings?.flags['etcd-endpoints'] !== undefined) return `settings of ${path}, as ${reasons[state]}`;
  return `default settings, as ${reasons[state]} and ${isThere ? `${path} names no endpoints` : `there is no ${path}`}`;
}
