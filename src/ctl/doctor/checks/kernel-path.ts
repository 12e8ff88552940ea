import type { KernelPathReason } from '../../../dataplane/kernel-path.js';
import type { Check, Found } from '../facts.js';

/** Whether the kernel carries what it can. */
export const KERNEL_PATH_CHECKS: readonly Check[] = [
  {
    id: 'kernel-path',
    title: 'the kernel carries packets where it is meant to',
    run: ({ daemon, underlay }) =>
      (daemon?.tunnels ?? []).flatMap(({ device, kernelPath }): readonly Found[] => {
        // A daemon of an earlier version does not tell of it.
        const refused = kernelPath?.refused;
        if (!refused) return [];
        const { isDemanded, reason, detail, hint } = refused;
        return [
          {
            severity: isDemanded ? 'warning' : 'note',
            message: `the kernel carries no packets of ${device}, the native tunnel carries them all: ${hint}`,
            evidence: `${reason}: ${detail}`,
            command: COMMANDS[reason].replace('UPLINK', underlay?.device ?? 'UPLINK'),
          },
        ];
      }),
  },
];

/** Shows more, or mends it. */
const COMMANDS: Readonly<Record<KernelPathReason, string>> = {
  'programs-missing': 'apt-get install clang && npm rebuild --global tsflannel',
  'not-permitted': 'grep Cap /proc/$(pidof -s tsflanneld node)/status # bits 12 and 39 are needed',
  kernel: 'journalctl -u tsflanneld -g "kernel path" # what the kernel said',
  driver: 'ip -details link show dev UPLINK # its MTU; ethtool -i UPLINK for its driver',
  'foreign-program': 'ip -details link show dev UPLINK # prog/xdp is the program that is there',
  'uplink-kind': 'ip -details link show dev UPLINK # name another one with --iface, or start with --datapath=native',
  gro: 'ethtool -K UPLINK gro on',
};
