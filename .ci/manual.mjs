// Writes the manual pages from the tables that the programs read their command lines with. Needs dist.
//
//   node .ci/manual.mjs DIRECTORY
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { FLAG_GROUPS } from '../dist/config/flag-values.js';
import { environmentName, flagsOf, textOf } from '../dist/config/flags.js';
import { versionText } from '../dist/config/version.js';
import { COMMON_FLAGS, EXIT, EXIT_MEANINGS } from '../dist/ctl/command.js';
import { COMMANDS } from '../dist/ctl/commands.js';
import { describeFlag, usageOf } from '../dist/ctl/help.js';

const [directory] = process.argv.slice(2);
if (directory === undefined) throw new Error('cannot write the manual: name a directory');
mkdirSync(directory, { recursive: true });
const pages = { tsflanneld: daemonPage(), tsflannelctl: controlPage(), 'mk-docker-opts': dockerOptsPage() };
for (const [name, lines] of Object.entries(pages)) {
  // Names must not be hyphenated: people search for them and copy them.
  writeFileSync(path.join(directory, `${name}.8`), `${[header(name), '.nh', '.ad l', ...lines].join('\n')}\n`);
}

function daemonPage() {
  const options = Object.entries(FLAG_GROUPS).flatMap(([group, title]) => [
    `.SS ${escape(title)}`,
    ...flagsOf(group).flatMap(([name, flag]) => {
      const value = flag.placeholder === undefined ? '' : ` \\fI${escape(flag.placeholder)}\\fR`;
      const initial = textOf(flag.initial);
      const notes = [
        ...(initial === '' ? [] : [`Default: ${initial}.`]),
        ...(name === 'version' ? [] : [`Variable: ${environmentName(name)}.`]),
      ];
      return ['.TP', `\\fB\\-\\-${escape(name)}\\fR${value}`, text(`${flag.help} ${notes.join(' ')}`)];
    }),
  ]);
  return [
    ...name('tsflanneld', 'container overlay network daemon, compatible with flanneld'),
    ...synopsis('tsflanneld', '[\\fIOPTION\\fR]...'),
    '.SH DESCRIPTION',
    text(
      'Leases a subnet for this host from the network that is configured in etcd, carries packets between the subnets of all hosts, and writes what Docker or the CNI plugin need to know to subnet.env. Flags, keys in etcd, files, devices and packets are those of flanneld.',
    ),
    '.PP',
    text(
      'The network is configured with tsflannelctl config set, or by writing PREFIX/config in etcd. The daemon follows changes of it.',
    ),
    '.SH OPTIONS',
    text(
      'Every option but --version can come from the environment; the command line wins, and an empty variable counts as unset. One or two dashes are the same. A switch takes a value only with "=", as in --ip-masq=false.',
    ),
    ...options,
    '.SH FILES',
    ...definitions([
      [
        '/etc/default/tsflanneld',
        'Environment of tsflanneld.service: the variables above, and TSFLANNELD_OPTS for more arguments.',
      ],
      ['/run/flannel/subnet.env', 'Network and subnet of this host, MTU, and whether the daemon masquerades.'],
      ['/var/lib/tsflannel', 'Last known lease, configuration and peers, for a start without etcd.'],
      ['/run/flannel/tsflanneld.sock', 'Socket for tsflannelctl.'],
      ['/run/docker_opts.env', 'Options for Docker, written by mk-docker-opts once the daemon is ready.'],
    ]),
    '.SH SIGNALS',
    text(
      'SIGTERM and SIGINT end the daemon. Lease, subnet.env, kernel devices and rules stay; the TUN device of the udp backend stays over a restart if the service manager keeps its descriptors.',
    ),
    ...exitStatus([
      [0, 'Ended by a signal.'],
      [1, 'Could not start; the log says why.'],
      [2, 'Wrong flags or environment.'],
    ]),
    ...seeAlso('tsflannelctl', 'mk-docker-opts'),
  ];
}

function controlPage() {
  return [
    ...name('tsflannelctl', 'look after a tsflannel network and its daemon'),
    ...synopsis('tsflannelctl', '\\fICOMMAND\\fR [\\fIOPTION\\fR]...'),
    '.SH DESCRIPTION',
    text(
      'Options that the daemon has too need not be given on its host. They come from the command line, else from the environment, else from the running daemon, else from /etc/default/tsflanneld, else from the defaults; --verbose says which. With --etcd-endpoints user and password have to be given as well. Only root may ask the daemon and change this host.',
    ),
    '.SH COMMANDS',
    ...COMMANDS.flatMap((command) => [
      `.SS ${escape(usageOf(command))}`,
      text(`${command.summary}. ${command.description ?? ''}`),
      ...definitions(command.operands.map((operand) => [operand.name, operand.help])),
      ...definitions(
        Object.entries(command.isRaw === true ? {} : { ...command.flags, ...COMMON_FLAGS }).map(([flagName, flag]) => [
          `--${flagName}${flag.placeholder === undefined ? '' : ` ${flag.placeholder}`}`,
          describeFlag(flagName, flag),
        ]),
      ),
    ]),
    '.SH FILES',
    ...definitions([
      ['/run/flannel/tsflanneld.sock', 'Socket of the running daemon.'],
      ['/etc/default/tsflanneld', 'Environment of tsflanneld.service, read where no daemon answers.'],
    ]),
    ...exitStatus(Object.keys(EXIT).map((key) => [EXIT[key], `${EXIT_MEANINGS[key]}.`])),
    ...seeAlso('tsflanneld', 'mk-docker-opts'),
  ];
}

function dockerOptsPage() {
  return [
    ...name('mk-docker-opts', 'turn subnet.env into options for the Docker daemon'),
    ...synopsis(
      'mk-docker-opts',
      '[\\fB\\-f\\fR \\fIFLANNEL\\-ENV\\-FILE\\fR] [\\fB\\-d\\fR \\fIDOCKER\\-ENV\\-FILE\\fR] [\\fB\\-i\\fR] [\\fB\\-c\\fR] [\\fB\\-m\\fR] [\\fB\\-k\\fR \\fICOMBINED\\-KEY\\fR]',
    ),
    '.SH DESCRIPTION',
    text(
      'Reads what tsflanneld found out about this host and writes --bip, --mtu and --ip-masq for dockerd into an environment file. Options and output are those of the script of that name that comes with flannel. Docker is told to masquerade exactly if tsflanneld does not.',
    ),
    '.SH OPTIONS',
    ...definitions([
      [
        '-f FLANNEL-ENV-FILE',
        'File that tsflanneld wrote, which must be there if it is named. Default: /run/flannel/subnet.env.',
      ],
      ['-d DOCKER-ENV-FILE', 'File to write for Docker. Default: /run/docker_opts.env.'],
      ['-i', 'Write one variable per option, such as DOCKER_OPT_MTU.'],
      ['-c', 'Write one variable with all options. Without -i and -c both are written.'],
      ['-k COMBINED-KEY', 'Name of that variable. Default: DOCKER_OPTS.'],
      ['-m', 'Leave out --ip-masq.'],
    ]),
    '.SH ENVIRONMENT',
    text('Variables DOCKER_OPT_* and the combined variable are taken over into the file.'),
    ...exitStatus([
      [0, 'The file was written.'],
      [1, 'It could not be written, or it was and a route through a gateway takes the packets of Docker’s bridge.'],
    ]),
    ...seeAlso('tsflanneld', 'tsflannelctl'),
  ];
}

function header(program) {
  return `.TH ${program.toUpperCase().replaceAll('-', '\\-')} 8 "" "tsflannel ${versionText().slice(1)}" "System administration"`;
}

function name(program, purpose) {
  return ['.SH NAME', `${escape(program)} \\- ${escape(purpose)}`];
}

function synopsis(program, rest) {
  return ['.SH SYNOPSIS', `.B ${escape(program)}`, rest];
}

function definitions(entries) {
  return entries.flatMap(([term, meaning]) => ['.TP', `\\fB${escape(term)}\\fR`, text(meaning)]);
}

function exitStatus(entries) {
  return ['.SH EXIT STATUS', ...definitions(entries.map(([code, meaning]) => [String(code), meaning]))];
}

function seeAlso(...programs) {
  return ['.SH SEE ALSO', programs.map((program) => `\\fB${escape(program)}\\fR(8)`).join(', ')];
}

/** A paragraph: one sentence per line, as roff wants it. */
function text(paragraph) {
  return escape(paragraph.trim())
    .replaceAll(/([.;:]) (?=[A-Z])/g, '$1\n')
    .replaceAll(/^(?=[.'])/gm, '\\&');
}

function escape(words) {
  return words.replaceAll('\\', '\\e').replaceAll('-', '\\-').replaceAll('’', '\\(cq');
}
