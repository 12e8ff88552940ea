import { DEFAULT_PATHS } from '../config/paths.js';
import { parseEnvFile } from './env-file.js';
import { type UnitSetting, inForce } from './unit-file.js';

/** The drop-in that gives Docker the overlay's values. */
export const DROP_IN = '/etc/systemd/system/docker.service.d/tsflannel.conf';

/** How Docker gets them: two variables of subnet.env, or all options from the file that `mk-docker-opts` writes. */
export const DROP_IN_FORMS = ['subnet-env', 'docker-opts'] as const;

/** One of {@link DROP_IN_FORMS}. */
export type DropInForm = (typeof DROP_IN_FORMS)[number];

/** The file that each form hands to Docker's unit, as tsflanneld.service has them written. */
export const VALUES_FILE: Readonly<Record<DropInForm, string>> = {
  'subnet-env': DEFAULT_PATHS.subnetFile,
  'docker-opts': DEFAULT_PATHS.dockerOptions,
};

/** What each form puts behind Docker's own command. */
export const DOCKER_OPTIONS: Readonly<Record<DropInForm, string>> = {
  'subnet-env': '--bip=${FLANNEL_SUBNET} --mtu=${FLANNEL_MTU} --ip-masq=false',
  'docker-opts': '$DOCKER_OPTS',
};

/** dockerd does not start with one of these both on its command line and in daemon.json, nor with a bridge and a --bip. */
const OWN_OPTIONS = ['bip', 'mtu', 'ip-masq', 'bridge'] as const;

/** First words of what {@link formatDropIn} makes; systemd/removal.sh looks for them as well. */
const MARK = '# Written by tsflannelctl docker enable';

/** What the examples of earlier releases, made to be copied by hand, had in common; likewise. */
const MARK_OF_EXAMPLES = '# To use it:  /etc/systemd/system/docker.service.d/tsflannel.conf';

/**
 * The text of {@link DROP_IN}.
 *
 * @param command - Docker's own `ExecStart=`, which stays in front: a drop-in can only replace it as a whole.
 */
export function formatDropIn(form: DropInForm, command: string): string {
  const options = DOCKER_OPTIONS[form];
  const comment =
    form === 'subnet-env'
      ? [
          "# tsflanneld masquerades (FLANNELD_IP_MASQ=true); Docker's own rule would also hide containers from each other.",
        ]
      : [];
  const isThere = command.split(/\s+/).includes(options);
  return [
    `${MARK}, removed by tsflannelctl docker disable; changes made here are lost.`,
    '[Unit]',
    'Wants=tsflanneld.service',
    'After=tsflanneld.service',
    '',
    '[Service]',
    '# Without this file Docker does not start: with other addresses its containers would be outside of the overlay.',
    `EnvironmentFile=${VALUES_FILE[form]}`,
    ...(isThere ? [] : ['ExecStart=', ...comment, `ExecStart=${command} ${options}`]),
    '',
  ].join('\n');
}

/** Who wrote a drop-in: the program, a person who copied one of our former examples, or somebody else. */
export function authorOf(dropIn: string): 'program' | 'copy' | 'other' {
  if (dropIn.startsWith(MARK)) return 'program';
  return dropIn.includes(MARK_OF_EXAMPLES) ? 'copy' : 'other';
}

/** The form that settings have, undefined if they take nothing from tsflanneld. */
export function formOf(settings: readonly UnitSetting[]): DropInForm | undefined {
  const files = inForce(settings, 'EnvironmentFile').map(({ value }) => value.replace(/^-/, ''));
  return DROP_IN_FORMS.find((form) => files.includes(VALUES_FILE[form]));
}

/**
 * What of somebody else's would stand against the drop-in, as a sentence for people; undefined if nothing.
 *
 * @param settings - of docker.service without {@link DROP_IN}.
 * @param environmentFile - text of one of its environment files, empty if there is none.
 * @param daemonJson - text of /etc/docker/daemon.json, likewise.
 */
export function obstacleTo(
  settings: readonly UnitSetting[],
  environmentFile: (file: string) => string,
  daemonJson: string,
): { readonly what: string; readonly hint: string } | undefined {
  const values = inForce(settings, 'EnvironmentFile').find(({ value }) =>
    Object.values(VALUES_FILE).includes(value.replace(/^-/, '')),
  );
  if (values !== undefined) {
    return {
      what: `${values.file} hands it ${values.value.replace(/^-/, '')} already`,
      hint: 'keep that file, which works with tsflanneld as well, or remove it and run this again',
    };
  }
  const variables = new Map(
    inForce(settings, 'EnvironmentFile').flatMap(({ value }) => [
      ...parseEnvFile(environmentFile(value.replace(/^-/, ''))),
    ]),
  );
  for (const { file, value } of inForce(settings, 'ExecStart')) {
    const words = value.replaceAll(/\$\{?(\w+)\}?/g, (_, name: string) => variables.get(name) ?? '').split(/[\s"']+/);
    const option = OWN_OPTIONS.find((name) =>
      words.some((word) => word === `--${name}` || word.startsWith(`--${name}=`)),
    );
    if (option !== undefined || words.some((word) => word.startsWith('-b'))) {
      return {
        what: `its command line has --${option ?? 'bridge'} already (ExecStart= in ${file}, or a variable in it)`,
        hint: 'take that option away and run this again',
      };
    }
  }
  const key = OWN_OPTIONS.find((name) => Object.hasOwn(objectIn(daemonJson), name));
  return key === undefined
    ? undefined
    : {
        what: `/etc/docker/daemon.json has "${key}", and Docker does not start with it in both places`,
        hint: `remove "${key}" there and run this again`,
      };
}

/** An unreadable daemon.json is Docker's to complain about. */
function objectIn(json: string): object {
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}
