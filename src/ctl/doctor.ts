import { intFlag } from '../config/flag-values.js';
import { defineCommand, EXIT, HOST_FLAGS, printJson, STORE_FLAGS } from './command.js';
import { CHECKS, diagnose } from './doctor/diagnose.js';
import type { Finding } from './doctor/facts.js';
import { gatherFacts } from './doctor/gather.js';
import { systemPing } from './doctor/probe.js';
import { requireRoot } from './rights.js';

/** `doctor` */
export const doctor = defineCommand({
  name: 'doctor',
  summary: 'Look for what is wrong on this host and on the way to its peers, with the command that fixes it',
  description:
    'Nothing is changed. Peers are probed with echoes on the underlay and through the overlay, and with one TCP and one UDP packet to a port that nobody serves; a router of each container network with ARP, once from the interface and once from another MAC address.',
  operands: [],
  flags: {
    ...HOST_FLAGS,
    ...STORE_FLAGS,
    'max-peers': intFlag(
      64,
      { min: 0, max: 65_536 },
      { group: 'observe', help: 'How many peers are probed at most; 0 probes nobody.' },
    ),
    'mac-limit': intFlag(
      0,
      { min: 0, max: 65_536 },
      {
        group: 'observe',
        help: 'How many MAC addresses the switch ports of this host take; 0: as many as there are.',
      },
    ),
  },
  exits: ['differences'],
  async run(context, { options }) {
    requireRoot('examine this host');
    const onProgress =
      context.showProgress && ((done: number, all: number) => context.showProgress?.(progressText(done, all)));
    const facts = await gatherFacts(context, { ...options, ping: systemPing, onProgress });
    const findings = diagnose(facts);
    const serious = findings.filter(({ severity }) => severity !== 'note');
    if (options.json) {
      const note = facts.probeNote ?? null;
      printJson(context, { findings, checks: CHECKS.map(({ id }) => id), probedPeers: facts.probes.length, note });
    } else {
      for (const line of findings.flatMap((finding) => formatFinding(finding))) context.out.line(line);
      if (facts.probeNote !== undefined) context.out.line(facts.probeNote);
      const probed = facts.probes.length === 1 ? '1 peer' : `${facts.probes.length} peers`;
      context.out.line(
        serious.length === 0
          ? `nothing wrong found: ${CHECKS.length} checks, ${probed} probed`
          : `${serious.length} of ${findings.length} findings need a look: ${CHECKS.length} checks, ${probed} probed`,
      );
    }
    return serious.length === 0 ? EXIT.ok : EXIT.differences;
  },
});

function progressText(done: number, all: number): string {
  return done < all ? `probing peers: ${done} of ${all}` : '';
}

function formatFinding(finding: Finding): readonly string[] {
  const { check, severity, message, evidence, command, consequences } = finding;
  return [
    `${severity} (${check}): ${message}`,
    `  seen: ${evidence}`,
    `  fix:  ${command}`,
    ...consequences.map((each) => `  therefore (${each.check}): ${each.message}`),
    '',
  ];
}
