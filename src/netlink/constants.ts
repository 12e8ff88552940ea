/**
 * Numbers of the kernel's netlink interfaces under their kernel names: `uapi/linux/netlink.h`, `rtnetlink.h`,
 * `if_link.h`, `if_addr.h`, `neighbour.h`, `pkt_sched.h`, `pkt_cls.h`, `if_tunnel.h`, `genetlink.h` and `wireguard.h` of
 * Linux 6.12. They never change once released.
 */

/** Message types and header flags. */
export const NLMSG = {
  NOOP: 1,
  ERROR: 2,
  DONE: 3,
  OVERRUN: 4,
  RTM_NEWLINK: 16,
  RTM_DELLINK: 17,
  RTM_GETLINK: 18,
  RTM_SETLINK: 19,
  RTM_NEWADDR: 20,
  RTM_DELADDR: 21,
  RTM_GETADDR: 22,
  RTM_NEWROUTE: 24,
  RTM_DELROUTE: 25,
  RTM_GETROUTE: 26,
  RTM_NEWNEIGH: 28,
  RTM_DELNEIGH: 29,
  RTM_GETNEIGH: 30,
  RTM_NEWQDISC: 36,
  RTM_DELQDISC: 37,
  RTM_NEWTFILTER: 44,
  RTM_DELTFILTER: 45,
  RTM_GETTFILTER: 46,
  RTM_NEWNEXTHOP: 104,
  RTM_DELNEXTHOP: 105,
} as const;

/** `nlmsg_flags`. Some bits mean different things for requests, dumps and acknowledgements. */
export const NLM_F = {
  REQUEST: 0x1,
  MULTI: 0x2,
  ACK: 0x4,
  DUMP_INTR: 0x10,
  DUMP: 0x300, // ROOT | MATCH
  REPLACE: 0x100,
  EXCL: 0x200,
  CREATE: 0x400,
  APPEND: 0x800,
  CAPPED: 0x100, // of an acknowledgement: the request's payload is left out
  ACK_TLVS: 0x200, // of an acknowledgement: attributes follow
} as const;

/** Attributes of an extended acknowledgement. */
export const NLMSGERR_ATTR = { MSG: 1, OFFS: 2, MISS_TYPE: 5, MISS_NEST: 6 } as const;

/** Attribute type bits that are not part of the number. */
export const NLA_F_NESTED = 0x8000;
/** Leaves the number of an attribute type. */
export const NLA_TYPE_MASK = 0x3fff;

/** Multicast groups (`enum rtnetlink_groups`). */
export const RTNLGRP = {
  LINK: 1,
  NEIGH: 3,
  TC: 4,
  IPV4_IFADDR: 5,
  IPV4_ROUTE: 7,
  IPV6_IFADDR: 9,
  IPV6_ROUTE: 11,
  NEXTHOP: 32,
} as const;

/** Address families as netlink numbers them. */
export const AF = { UNSPEC: 0, INET: 2, BRIDGE: 7, INET6: 10 } as const;

/** Interface flags. */
export const IFF = { UP: 0x1, LOOPBACK: 0x8, RUNNING: 0x40, LOWER_UP: 0x10000 } as const;

/** `rt_scope`: how far away an address or a destination is. */
export const SCOPES = { global: 0, site: 200, link: 253, host: 254, nowhere: 255 } as const;

/** Link attributes. */
export const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  LINK: 5,
  MASTER: 10,
  TXQLEN: 13,
  OPERSTATE: 16,
  LINKINFO: 18,
  NET_NS_PID: 19,
  IFALIAS: 20,
  NET_NS_FD: 28,
  EXT_MASK: 29,
  MAX: 80,
} as const;

/** Inside `IFLA_LINKINFO`. */
export const IFLA_INFO = { KIND: 1, DATA: 2, SLAVE_KIND: 4, SLAVE_DATA: 5, MAX: 5 } as const;

/** Inside `IFLA_INFO_SLAVE_DATA` of a port of a bridge. */
export const IFLA_BRPORT = { MODE: 4, ISOLATED: 33, MAX: 33 } as const;

/** Leaves counters out of link dumps (4.16). */
export const RTEXT_FILTER_SKIP_STATS = 8;

/** Inside `IFLA_INFO_DATA` of a vxlan link. */
export const IFLA_VXLAN = {
  ID: 1,
  GROUP: 2,
  LINK: 3,
  LOCAL: 4,
  TTL: 5,
  TOS: 6,
  LEARNING: 7,
  PROXY: 11,
  RSC: 12,
  L2MISS: 13,
  L3MISS: 14,
  PORT: 15,
  GROUP6: 16,
  LOCAL6: 17,
  GBP: 23,
  COLLECT_METADATA: 25,
  MAX: 40,
} as const;

/** Inside `IFLA_INFO_DATA` of an ipip link. */
export const IFLA_IPTUN = { LINK: 1, LOCAL: 2, REMOTE: 3, TTL: 4, TOS: 5, PMTUDISC: 10, MAX: 24 } as const;

/** Inside `IFLA_INFO_DATA` of the simple kinds. */
export const IFLA_VLAN_ID = 1;
export const IFLA_MACVLAN_MODE = 1;
/** `FLAGS` since 4.15 (commits a190d04db937 and fe89aa6b250c). */
export const IFLA_IPVLAN = { MODE: 1, FLAGS: 2 } as const;
export const VETH_INFO_PEER = 1;

/** Address attributes. */
export const IFA = { ADDRESS: 1, LOCAL: 2, LABEL: 3, FLAGS: 8, MAX: 12 } as const;

/** Address flags. */
export const IFA_F = {
  SECONDARY: 0x01,
  NODAD: 0x02,
  DADFAILED: 0x08,
  DEPRECATED: 0x20,
  TENTATIVE: 0x40,
  PERMANENT: 0x80,
  NOPREFIXROUTE: 0x200,
} as const;

/** Route attributes. */
export const RTA = {
  DST: 1,
  SRC: 2,
  IIF: 3,
  OIF: 4,
  GATEWAY: 5,
  PRIORITY: 6,
  PREFSRC: 7,
  METRICS: 8,
  MULTIPATH: 9,
  TABLE: 15,
  VIA: 18,
  NH_ID: 30,
  MAX: 32,
} as const;

/** Attributes inside of `METRICS`: `uapi/linux/rtnetlink.h`. */
export const RTAX = { MTU: 2, MAX: 2 } as const;

/** Next hop object attributes: `uapi/linux/nexthop.h`. */
export const NHA = { ID: 1, MAX: 16 } as const;

/** The main routing table. */
export const RT_TABLE_MAIN = 254;

/** Next hop flags, also found in `rtm_flags`. */
export const RTNH_F = { DEAD: 1, ONLINK: 4, LINKDOWN: 16 } as const;

/** `rtm_flags`: the route is a copy that the kernel made for one destination. */
export const RTM_F_CLONED = 0x200;

/** Who made a route (`rtm_protocol`). */
export const RTPROT = { UNSPEC: 0, REDIRECT: 1, KERNEL: 2, BOOT: 3, STATIC: 4, RA: 9 } as const;

/** Of routes that come and go with addresses, router advertisements and ICMP, not by anybody's decision. */
export const AUTOMATIC_PROTOCOLS: ReadonlySet<number> = new Set([RTPROT.REDIRECT, RTPROT.KERNEL, RTPROT.RA]);

/** Neighbour attributes. */
export const NDA = {
  DST: 1,
  LLADDR: 2,
  PORT: 6,
  VNI: 7,
  IFINDEX: 8,
  MASTER: 9,
  /** Who has made the entry, as `rtm_protocol` (5.0). */
  PROTOCOL: 12,
  MAX: 16,
} as const;

/** Neighbour states. */
export const NUD = {
  INCOMPLETE: 0x01,
  REACHABLE: 0x02,
  STALE: 0x04,
  DELAY: 0x08,
  PROBE: 0x10,
  FAILED: 0x20,
  NOARP: 0x40,
  PERMANENT: 0x80,
} as const;

/** Neighbour flag: have the kernel ask for it now. */
export const NTF_USE = 0x01;

/** Neighbour flag: the forwarding entry belongs to the device itself, not to its bridge. */
export const NTF_SELF = 0x02;

/** Neighbour flag: an address that this host answers for on behalf of somebody else. */
export const NTF_PROXY = 0x08;

/** Attributes of queueing disciplines and of filters. */
export const TCA = { KIND: 1, OPTIONS: 2, MAX: 16 } as const;

/** Inside `TCA_OPTIONS` of a bpf filter. */
export const TCA_BPF = { OPS_LEN: 4, OPS: 5, FLAGS: 8, MAX: 12 } as const;

/** The program's result says what becomes of the packet (4.4). */
export const TCA_BPF_FLAG_ACT_DIRECT = 1;

/** Handles and parents of queueing disciplines: the one for what comes in and goes out before all others (4.5). */
export const TC_H = { CLSACT: 0xfffffff1, CLSACT_HANDLE: 0xffff0000, INGRESS: 0xfffffff2, EGRESS: 0xfffffff3 } as const;

/** What becomes of a packet. */
export const TC_ACT = { OK: 0, SHOT: 2 } as const;

/** Every Ethernet type. */
export const ETH_P_ALL = 3;

/** The family that tells the numbers of all others, and how it is asked (`genetlink.h`). */
export const GENL_ID_CTRL = 16;
export const CTRL_CMD_GETFAMILY = 3;
export const CTRL_ATTR = { FAMILY_ID: 1, FAMILY_NAME: 2, MAX: 10 } as const;

/** Commands of the family `wireguard`. */
export const WG_CMD = { GET_DEVICE: 0, SET_DEVICE: 1 } as const;

/** Attributes of its messages. */
export const WGDEVICE_A = {
  IFINDEX: 1,
  IFNAME: 2,
  PRIVATE_KEY: 3,
  PUBLIC_KEY: 4,
  FLAGS: 5,
  LISTEN_PORT: 6,
  FWMARK: 7,
  PEERS: 8,
  MAX: 8,
} as const;

/** Inside an entry of `WGDEVICE_A_PEERS`. */
export const WGPEER_A = {
  PUBLIC_KEY: 1,
  PRESHARED_KEY: 2,
  FLAGS: 3,
  ENDPOINT: 4,
  PERSISTENT_KEEPALIVE_INTERVAL: 5,
  LAST_HANDSHAKE_TIME: 6,
  RX_BYTES: 7,
  TX_BYTES: 8,
  ALLOWEDIPS: 9,
  MAX: 10,
} as const;

/** `WGPEER_A_FLAGS` */
export const WGPEER_F = { REMOVE_ME: 1, REPLACE_ALLOWEDIPS: 2 } as const;

/** Inside an entry of `WGPEER_A_ALLOWEDIPS`. */
export const WGALLOWEDIP_A = { FAMILY: 1, IPADDR: 2, CIDR_MASK: 3, MAX: 3 } as const;
