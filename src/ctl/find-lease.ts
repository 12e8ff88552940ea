import { OverlayError } from '../errors.js';
import { IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import type { HostStatus } from '../lease/host-status.js';
import type { LeaseRecord } from '../lease/record.js';
import type { LeaseSnapshot } from '../lease/store.js';
import type { Operand } from './command.js';
import { parseSubnetName } from './lease-rows.js';

/** The operand of commands about one lease, as {@link findLease} reads it. */
export const LEASE_OPERAND: Operand = {
  name: 'LEASE',
  isOptional: false,
  help: 'a subnet such as 10.5.3.0/24, the name or a public address of its host, an address in the subnet such as that of a container, or the name of the key',
  values: 'none',
};

type Test = (lease: LeaseRecord) => boolean;

/**
 * The one lease that somebody means by a word.
 *
 * @param hosts - what hosts tell about themselves, by public address.
 * @throws {@link OverlayError} `ERR_NOT_FOUND` if there is none or several of them, `ERR_IP_SYNTAX`
 */
export function findLease(snapshot: LeaseSnapshot, hosts: ReadonlyMap<string, HostStatus>, word: string): LeaseRecord {
  const matches = meaningsOf(word, hosts).map((test) => snapshot.leases.filter(test));
  const found = matches.find((leases) => leases.length > 0) ?? [];
  const [lease] = found;
  if (lease === undefined) {
    throw new OverlayError('ERR_NOT_FOUND', `cannot find a lease for ${word}: nobody holds one`, {
      hint: 'see tsflannelctl leases list',
    });
  }
  if (found.length > 1) {
    throw new OverlayError('ERR_NOT_FOUND', `cannot choose a lease for ${word}: there are ${found.length}`, {
      hint: `name one of ${found.map(({ key }) => key).join(', ')}`,
    });
  }
  return lease;
}

/** What a word may mean, the most likely first. */
function meaningsOf(word: string, hosts: ReadonlyMap<string, HostStatus>): readonly Test[] {
  const isKey: Test = ({ key }) => key === word;
  const address = IpAddress.tryParse(word);
  if (address !== undefined) {
    return [
      ({ attributes: { publicIp, publicIpv6 } }) => publicIp.equals(address) || publicIpv6?.equals(address) === true,
      ({ subnet, ipv6Subnet }) => subnet.contains(address) || ipv6Subnet?.contains(address) === true,
    ];
  }
  const prefix = Prefix.tryParse(word);
  if (prefix?.family === 6) return [({ ipv6Subnet }) => ipv6Subnet?.equals(prefix) === true];
  if (/^\d+\.\d+\.\d+\.\d+-\d|[/&]/.test(word)) {
    const isSubnet: Test = ({ subnet }) => subnet.equals(parseSubnetName(word).subnet);
    return [isKey, isSubnet];
  }
  const nameOf = ({ attributes }: LeaseRecord): string => hosts.get(attributes.publicIp.toString())?.hostName ?? '';
  const name = word.toLowerCase();
  return [
    isKey,
    (lease) => nameOf(lease).toLowerCase() === name,
    (lease) => nameOf(lease).toLowerCase().split('.')[0] === name,
  ];
}
