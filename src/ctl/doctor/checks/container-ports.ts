import type { ParentFacts } from '../container-facts.js';
import type { Check, DoctorFacts, Found } from '../facts.js';
import { networkRemoval, someOf } from '../text.js';

/** What the switch, hypervisor or cloud behind an interface does to the frames of containers on it. */
export const CONTAINER_PORT_CHECKS: readonly Check[] = [
  {
    id: 'foreign-mac',
    title: "the network carries frames from and to the containers' own MAC addresses",
    follows: ['network-parent'],
    run: foreignMacs,
  },
  { id: 'mac-limit', title: 'no switch port gets more MAC addresses than `--mac-limit` says', run: macLimits },
];

function foreignMacs({ containers, daemon }: DoctorFacts): readonly Found[] {
  return (containers?.parents ?? []).flatMap((parent): Found[] => {
    const { name, foreign, macs } = parent;
    if (foreign === undefined || foreign.isAnswered) return [];
    const networks = (daemon?.containerNetworks?.networks ?? []).filter((each) => each.parent === name);
    return [
      {
        severity: 'error',
        message: `containers of ${someOf(networks.flatMap(({ subnets }) => subnets))} reach nobody outside this host: the network behind ${name} carries frames of its own MAC address alone`,
        evidence: `${foreign.address} answers ${macs[0] ?? 'its MAC address'}, and not ${foreign.mac} on the same interface`,
        command: remedy(
          parent,
          containers?.machine ?? '',
          networks.map(({ id }) => id),
        ),
      },
    ];
  });
}

/** Makers of virtual machines, by SMBIOS, and how each lets a machine have more than one MAC address. */
const HYPERVISORS: readonly (readonly [maker: RegExp, command: string])[] = [
  [
    /vmware/i,
    'esxcli network vswitch standard portgroup policy security set --portgroup-name=NAME --allow-promiscuous=true --allow-forged-transmits=true # on the ESXi host; on a distributed switch, from 6.7 on, MAC learning and forged transmits',
  ],
  [/virtualbox|innotek/i, 'VBoxManage controlvm NAME nicpromisc1 allow-all # on the host of this machine'],
  [
    /microsoft/i,
    'Set-VMNetworkAdapter -VMName NAME -MacAddressSpoofing On # on the Hyper-V host; in Azure it is not possible: use the overlay',
  ],
];

/** Clouds that deliver to the addresses alone that they gave themselves. */
const CLOUDS = /amazon|google|alibaba|digitalocean|hetzner|openstack|oraclecloud/i;

function remedy({ isWireless }: ParentFacts, machine: string, networks: readonly string[]): string {
  const never = isWireless ? 'Wi-Fi has one MAC address per station' : 'this cloud delivers to its own MAC addresses';
  if (isWireless || CLOUDS.test(machine))
    return `${networks.map(networkRemoval).join('; ')} # ${never}: put the containers into the overlay`;
  const known = HYPERVISORS.find(([maker]) => maker.test(machine));
  if (known !== undefined) return known[1];
  return 'bridge link set dev PORT learning on flood on locked off # at the other end of the cable, if that is a Linux bridge; else in the words of the switch or hypervisor: port security, promiscuous mode, forged transmits (docs/docker-networks.md)';
}

function macLimits({ containers, macLimit }: DoctorFacts): readonly Found[] {
  if (macLimit === undefined) return [];
  return (containers?.parents ?? [])
    .filter(({ macs }) => macs.length >= macLimit)
    .map(({ name, macs }): Found => {
      const more = macs.length - macLimit;
      return {
        severity: more > 0 ? 'error' : 'warning',
        message:
          more > 0
            ? `the switch port of ${name} gets more MAC addresses than it takes; some containers reach nobody outside this host`
            : `the switch port of ${name} takes no further container`,
        evidence: `${macs.length} MAC addresses, the interface's own included, and the limit is ${macLimit}`,
        command: `tsflannelctl docker-networks # which containers they are: end ${more + 1} here and start them on another host, or raise the limit of the port, then --mac-limit`,
      };
    });
}
