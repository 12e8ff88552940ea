import { addressFlag, optionalTextFlag } from '../config/flag-values.js';
import { type NetworkConfig, parseNetworkConfig } from '../config/network-config.js';
import { OverlayError } from '../errors.js';
import type { IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import { doesFit, findOverlapping, listFree } from '../lease/allocator.js';
import type { LeaseAttributes, LeaseSubnets } from '../lease/lease.js';
import type { LeaseRecord } from '../lease/record.js';
import type { LeaseSnapshot } from '../lease/store.js';
import { defineCommand, EXIT, printJson, STORE_FLAGS, withStore } from './command.js';
import { noConfig } from './config-get.js';
import { describeSubnets, parseSubnetName } from './lease-rows.js';

/** What to reserve, and for whom. */
export interface Reservation {
  readonly subnets: LeaseSubnets;
  readonly attributes: LeaseAttributes;
  /** The host's present lease of that subnet, which is turned into a reservation. */
  readonly existing: LeaseRecord | undefined;
  readonly notes: readonly string[];
}

/** `leases reserve SUBNET --public-ip ADDRESS` */
export const leasesReserve = defineCommand({
  name: 'leases reserve',
  summary: 'Give a host a subnet for good: the lease never expires, whether the host runs or not',
  description:
    'A host that holds the subnet already keeps it. One that holds another subnet takes the reserved one when its daemon starts the next time.',
  operands: [{ name: 'SUBNET', isOptional: false, help: 'the IPv4 subnet, such as 10.5.3.0/24', values: 'none' }],
  flags: {
    ...STORE_FLAGS,
    'public-ip': addressFlag([4], {
      group: 'underlay',
      help: 'Public IPv4 address of the host; without it, the host that holds the subnet now.',
    }),
    'public-ipv6': addressFlag([6], { group: 'underlay', help: 'Its public IPv6 address, in a dual-stack network.' }),
    'ipv6-subnet': optionalTextFlag({
      group: 'lease',
      placeholder: 'SUBNET',
      help: 'IPv6 subnet, in a dual-stack network; without it, the first free one.',
    }),
  },
  exits: ['unreachable'],
  run: (context, { operands, options }) =>
    withStore(context, options, async (store) => {
      const entry = await store.readConfig(context.signal);
      if (entry === undefined) throw noConfig(options.etcdPrefix);
      const plan = planReservation({
        network: parseNetworkConfig(entry.text),
        snapshot: await store.listLeases(context.signal),
        subnet: parseSubnetName(operands[0] ?? '').subnet,
        ipv6Subnet: options.ipv6Subnet === undefined ? undefined : Prefix.parse(options.ipv6Subnet),
        publicIp: options.publicIp,
        publicIpv6: options.publicIpv6,
      });
      const result = await store.reserve(plan.subnets, plan.attributes, plan.existing, context.signal);
      if (result.outcome === 'changed') {
        throw new OverlayError(
          'ERR_CONFLICT',
          `cannot reserve ${describeSubnets(plan.subnets)}: the lease changed in the meantime`,
          { hint: 'look at tsflannelctl leases list, then run this again' },
        );
      }
      const { key, revision } = result.lease;
      const publicIp = plan.attributes.publicIp.toString();
      if (options.json) printJson(context, { key, publicIp, revision, notes: plan.notes });
      else context.out.line(`reserved ${describeSubnets(plan.subnets)} for ${publicIp}`);
      if (!options.json) for (const note of plan.notes) context.out.line(note);
      return EXIT.ok;
    }),
});

/**
 * Decides what a reservation writes.
 *
 * @throws {@link OverlayError} `ERR_CONFLICT` if the subnet belongs to another host, `ERR_NOT_FOUND` if no host is given
 * and none holds it, `ERR_NETWORK_CONFIG` if no host could use it.
 */
function planReservation(input: {
  readonly network: NetworkConfig;
  readonly snapshot: LeaseSnapshot;
  readonly subnet: Prefix;
  readonly ipv6Subnet: Prefix | undefined;
  readonly publicIp: IpAddress | undefined;
  readonly publicIpv6: IpAddress | undefined;
}): Reservation {
  const { network, snapshot, subnet } = input;
  const existing = snapshot.leases.find((lease) => lease.subnet.equals(subnet));
  const publicIp = input.publicIp ?? existing?.attributes.publicIp;
  if (publicIp === undefined) {
    throw new OverlayError('ERR_NOT_FOUND', `cannot reserve ${subnet.toString()}: no host holds it now`, {
      hint: 'name the host with --public-ip',
    });
  }
  const ipv6Subnet =
    network.ipv6 === undefined
      ? undefined
      : (existing?.ipv6Subnet ?? input.ipv6Subnet ?? listFree(network.ipv6, takenIpv6(snapshot))[0]);
  const subnets = { subnet, ipv6Subnet };
  if (!doesFit(network, existing ?? subnets)) throw misfit(network, existing ?? subnets);
  const holders = findOverlapping(subnets, [
    ...snapshot.leases,
    ...snapshot.bad.flatMap((entry) => entry.subnets ?? []),
  ]);
  const others = holders.filter((holder) => holder !== existing || !existing.attributes.publicIp.equals(publicIp));
  if (others.length > 0) throw taken(subnets, others);
  const attributes = existing?.attributes ?? {
    publicIp,
    publicIpv6: network.ipv6 === undefined ? undefined : input.publicIpv6,
    backendType: '',
    backendData: undefined,
    backendV6Data: undefined,
  };
  return { subnets: existing ?? subnets, attributes, existing, notes: notesOf(snapshot, publicIp, subnet) };
}

function notesOf(snapshot: LeaseSnapshot, publicIp: IpAddress, subnet: Prefix): readonly string[] {
  return snapshot.leases
    .filter((lease) => lease.attributes.publicIp.equals(publicIp) && !lease.subnet.equals(subnet))
    .map(
      (lease) =>
        `${publicIp.toString()} holds ${lease.subnet.toString()} now; to change over, run there: systemctl restart tsflanneld docker`,
    );
}

function takenIpv6(snapshot: LeaseSnapshot): readonly Prefix[] {
  const subnets = [...snapshot.leases, ...snapshot.bad.flatMap((entry) => entry.subnets ?? [])];
  return subnets.flatMap(({ ipv6Subnet }) => ipv6Subnet ?? []);
}

function misfit(network: NetworkConfig, subnets: LeaseSubnets): OverlayError {
  const ranges = [network.ipv4, network.ipv6].flatMap((range) =>
    range === undefined ? [] : [`/${range.subnetLen} from ${range.min.toString()} to ${range.max.toString()}`],
  );
  return new OverlayError(
    'ERR_NETWORK_CONFIG',
    `cannot reserve ${describeSubnets(subnets)}: it does not fit the network configuration, so no host would use it`,
    { hint: `choose a subnet of ${ranges.join(' and of ')}` },
  );
}

function taken(subnets: LeaseSubnets, others: readonly LeaseSubnets[]): OverlayError {
  const names = others.map((other) => {
    const owner = 'attributes' in other ? (other as LeaseRecord).attributes.publicIp.toString() : 'an unreadable lease';
    return `${describeSubnets(other)} (${owner})`;
  });
  return new OverlayError(
    'ERR_CONFLICT',
    `cannot reserve ${describeSubnets(subnets)}: it is taken by ${names.join(', ')}`,
    {
      hint: 'choose another subnet, or release that lease first',
    },
  );
}
