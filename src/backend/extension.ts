import {
  COMMAND_VARIABLES,
  type CommandValues,
  type CommandVariable,
  type CommandWords,
  isFault,
  readCommand,
} from '../extension/command-text.js';
import { COMMAND_KEYS, type CommandKey, type HostCommands, type PeerInput } from '../extension/host-commands.js';
import { OverlayError } from '../errors.js';
import type { JsonValue } from '../json.js';
import type { Lease } from '../lease/lease.js';
import { type BackendContext, NO_LEASE_DATA, type PeerState, defineBackend } from './backend.js';
import { ownSides, peerSides } from './families.js';

const PEER_VARIABLES: readonly CommandVariable[] = ['SUBNET', 'IPV6SUBNET', 'PUBLIC_IP', 'PUBLIC_IPV6'];

/** What each command is told; before there is a lease there is nothing to tell. */
const VARIABLES: Readonly<Record<CommandKey, readonly CommandVariable[]>> = {
  PreStartupCommand: [],
  PostStartupCommand: COMMAND_VARIABLES,
  SubnetAddCommand: PEER_VARIABLES,
  SubnetRemoveCommand: PEER_VARIABLES,
  ShutdownCommand: COMMAND_VARIABLES,
};

/** Control characters that no program prints into a key or an address; line feeds and tabs separate. */
const CONTROLS = /(?![\n\t])\p{Cc}/u;

/**
 * Commands of the operator do what other backends ask of the kernel; see {@link BackendCommands} for when they are run.
 *
 * @see flannel `pkg/backend/extension/extension.go`
 */
export const extensionBackend = defineBackend({
  type: 'extension',
  publishedType: 'extension',
  families: [4, 6],
  deviceKind: undefined,
  deviceNames: undefined,
  carriesAdditional: false, // commands are told of subnets alone
  rules: {
    preStartup: { key: 'PreStartupCommand', kind: 'string', default: '' },
    postStartup: { key: 'PostStartupCommand', kind: 'string', default: '' },
    subnetAdd: { key: 'SubnetAddCommand', kind: 'string', default: '' },
    subnetRemove: { key: 'SubnetRemoveCommand', kind: 'string', default: '' },
    shutdown: { key: 'ShutdownCommand', kind: 'string', default: '' },
    timeoutSeconds: { key: 'CommandTimeout', kind: 'int', min: 1, max: 600, default: 30 },
  },

  configure({ preStartup, postStartup, subnetAdd, subnetRemove, shutdown, timeoutSeconds }) {
    const words = readCommands({
      PreStartupCommand: preStartup,
      PostStartupCommand: postStartup,
      SubnetAddCommand: subnetAdd,
      SubnetRemoveCommand: subnetRemove,
      ShutdownCommand: shutdown,
    });
    const commands: HostCommands = { words, timeoutMs: timeoutSeconds * 1000 };
    const hasCommands = Object.keys(words).length > 0;
    return {
      carrier: undefined,
      asksOnLink: false,
      ...(hasCommands && { commands }),
      check: () => {},
      mtu: (_network, underlay) => underlay.mtu,
      leaseData: (_network, _host, startupOutput) =>
        words.PreStartupCommand === undefined ? NO_LEASE_DATA : { ...NO_LEASE_DATA, backendData: startupOutput ?? '' },
      desired: (context) => ({
        base: {},
        ownValues: ownValues(context),
        peer: (lease) => (context.isOwn || hasCommands ? peerState(lease, context) : withoutCommands(lease)),
      }),
    };
  },
});

/** @throws {@link OverlayError} `ERR_BACKEND_OPTION` with what to write instead. */
function readCommands(texts: Readonly<Record<CommandKey, string>>): HostCommands['words'] {
  const commands = COMMAND_KEYS.filter((key) => texts[key].trim() !== '').map((key): [CommandKey, CommandWords] => {
    const read = readCommand(texts[key], VARIABLES[key]);
    if (!isFault(read)) return [key, read];
    throw new OverlayError(
      'ERR_BACKEND_OPTION',
      `cannot use backend extension: Backend.${key} is not a command: ${read.fault}`,
      { hint: read.hint },
    );
  });
  return Object.fromEntries(commands);
}

function ownValues(context: BackendContext): CommandValues {
  const { network, own, host } = context;
  const values = { NETWORK: network.ipv4?.network.toString() ?? '', SUBNET: '', IPV6SUBNET: '' };
  const [publicIp, publicIpv6] = [host.underlay.publicIp, host.underlay.publicIpv6];
  for (const { family, subnet } of ownSides(context)) {
    values[family === 4 ? 'SUBNET' : 'IPV6SUBNET'] = subnet.toString();
  }
  return {
    ...values,
    PUBLIC_IP: publicIp?.toString() ?? '',
    PUBLIC_IPV6: own.ipv6Subnet === undefined ? '' : (publicIpv6?.toString() ?? ''),
  };
}

function peerState(lease: Lease, context: BackendContext): PeerState {
  const sides = peerSides(context, lease);
  if ('reason' in sides) return { state: {}, skipped: sides };
  const data = textOf(lease.attributes.backendData);
  if (data === undefined) {
    const reason = 'BackendData of its lease is not a text without control characters';
    const hint = 'look at what PreStartupCommand writes to standard output on that host';
    return { state: {}, skipped: { lease, cause: 'data', reason, hint } };
  }
  const values = { SUBNET: '', IPV6SUBNET: '', PUBLIC_IP: '', PUBLIC_IPV6: '' };
  for (const { family, subnet, publicIp } of sides) {
    values[family === 4 ? 'SUBNET' : 'IPV6SUBNET'] = subnet.toString();
    values[family === 4 ? 'PUBLIC_IP' : 'PUBLIC_IPV6'] = publicIp.toString();
  }
  const input: PeerInput = { subnet: lease.subnet.toString(), values, data };
  return { state: {}, input };
}

/** Empty for a host without PreStartupCommand; undefined for what no such command can have written. */
function textOf(data: JsonValue | undefined): string | undefined {
  if (data === undefined || data === null) return '';
  return typeof data === 'string' && !CONTROLS.test(data) ? data : undefined;
}

function withoutCommands(lease: Lease): PeerState {
  const reason = 'its lease names backend "extension", whose commands are not in the configuration';
  const hint = 'wait until that host follows the configuration, or restart its daemon';
  return { state: {}, skipped: { lease, cause: 'backend', reason, hint } };
}
