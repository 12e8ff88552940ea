import type { JUNK } from './history.js';

/** A key below `subnets/` and what is put there. */
export interface Junk {
  readonly name: string;
  readonly value: string;
}

/** The hosts that a piece of junk is aimed at. */
export interface JunkTarget {
  /** `a.b.c.d/len` of one host, undefined if it has none. */
  readonly subnet: string | undefined;
  readonly address: string;
  readonly vtepMac: string | undefined;
}

const STRANGER = '198.51.100.7';

/** What somebody writes below `subnets/` who is no host of ours, or is mistaken, or means harm. */
export function makeJunk(kind: (typeof JUNK)[number], { subnet, address, vtepMac }: JunkTarget): Junk {
  const value = (publicIp: string, more: object = {}): string =>
    JSON.stringify({ PublicIP: publicIp, PublicIPv6: null, ...more });
  const [own = '10.5.1.0'] = subnet?.split('/') ?? [];
  switch (kind) {
    case 'covers-etcd':
      return { name: '192.0.2.248-29', value: value(STRANGER) };
    case 'covers-underlay':
      return { name: '192.0.2.0-24', value: value(STRANGER) };
    case 'covers-own-address':
      return { name: `${address}-32`, value: value(STRANGER) };
    case 'inside-own':
      return { name: `${own}-27`, value: value(STRANGER) };
    case 'around-all':
      return { name: '10.0.0.0-8', value: value(STRANGER) };
    case 'outside':
      return { name: '203.0.113.0-24', value: value(STRANGER) };
    case 'unspecified-ip':
      return { name: '10.5.250.0-24', value: value('0.0.0.0') };
    case 'multicast-ip':
      return { name: '10.5.250.0-24', value: value('224.0.0.1') };
    case 'loopback-ip':
      return { name: '10.5.250.0-24', value: value('127.0.0.1') };
    case 'broadcast-ip':
      return { name: '10.5.250.0-24', value: value('192.0.2.255') };
    case 'overlay-ip':
      return { name: '10.5.250.0-24', value: value('10.5.1.2') };
    case 'own-ip':
      return { name: '10.5.251.0-24', value: value(address) };
    case 'same-mac': {
      const data = { BackendType: 'vxlan', BackendData: { VNI: 1, VtepMAC: vtepMac ?? '02:00:00:00:00:01' } };
      return { name: '10.5.252.0-24', value: value('192.0.2.240', data) };
    }
    case 'no-key':
      return { name: 'README', value: value(STRANGER) };
    case 'no-json':
      return { name: '10.5.253.0-24', value: '\u001b[2J{"PublicIP"' };
    case 'deep':
      return { name: '10.5.253.0-24', value: `{"BackendData":${'['.repeat(5000)}${']'.repeat(5000)}}` };
    case 'binary':
      return { name: '10.5.253.0-24\u0000', value: '\u0000\u0001\u0002' };
    case 'huge':
      return { name: '10.5.253.0-24', value: value(STRANGER, { BackendType: 'x'.repeat(100_000) }) };
  }
}
