import type { FailingCommand } from '../../../extension/status.js';
import type { Check, Found } from '../facts.js';
import { someOf } from '../text.js';

/** What the commands of backend extension do on this host, by the daemon's account. */
export const EXTENSION_CHECKS: readonly Check[] = [
  {
    id: 'extension-commands',
    title: 'the commands of backend extension succeed',
    run: ({ daemon }) => {
      // A daemon of an earlier version does not tell of any.
      if (daemon?.commands == null) return [];
      const { failing, failingCount } = daemon.commands;
      const ofHost = failing.filter(({ peer }) => peer === null);
      const ofPeers = failing.filter((each): each is CommandForPeer => each.peer !== null);
      return [...ofHost.map(hostFinding), ...(ofPeers.length === 0 ? [] : [peerFinding(ofPeers, failingCount)])];
    },
  },
];

type CommandForPeer = FailingCommand & { readonly peer: string };

const COMMAND = 'tsflannelctl config get # and run that command by hand on this host, with the variables it is told';

function hostFinding(failing: FailingCommand): Found {
  const { command, attempts } = failing;
  return {
    severity: 'error',
    message: `${command} of backend extension has failed ${attempts} times: nothing is sent to other hosts before it succeeds`,
    evidence: describe(failing),
    command: COMMAND,
  };
}

function peerFinding(failing: readonly CommandForPeer[], count: number): Found {
  const peers = count === 1 ? 'one peer fails' : `${count} peers fail`;
  return {
    severity: 'warning',
    message: `commands of backend extension for ${peers}`,
    evidence: someOf(failing.map((each) => `${each.peer}: ${each.command}: ${describe(each)}`)),
    command: COMMAND,
    subnets: failing.map(({ peer }) => peer),
  };
}

function describe({ failure, lastLine }: FailingCommand): string {
  return lastLine === '' ? failure : `${failure}: ${lastLine}`;
}
