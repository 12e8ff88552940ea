// The kernel path: programs that carry what is plain between the TUN and the uplink, in flannel's wire format, and leave
// everything else to the native tunnel.
//
//     container ── flannel0 ── send ─────────────────────────▶ uplink ──▶
//     container ◀─ flannel0 ◀─ deliver ◀─ receive_xdp ◀─────── uplink ◀──
//                           ◀─ receive_tc ◀─────────────────── uplink ◀──
//
//   send         egress of the TUN
//   receive_xdp  XDP of the uplink, where its driver has it: before GRO, which then joins inner TCP
//   deliver      ingress of the uplink, behind receive_xdp
//   receive_tc   ingress of the uplink instead of these two
//
// Three rules hold it together. What is taken, the native tunnel would have forwarded, byte for byte
// (test/native/kernel_path compares them). What send takes, the receiving programs take, too, since a checksum that a
// device was to finish may still be open in it: behind another kernel it is finished or not needed, but a socket would
// see it as it is. And what a tunnel sent, the tunnel gets, so that the sender alone decides the way of a flow: the two are
// told apart by the outer checksum, which the programs leave out and a socket computes.
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include "../core/kernel_path/layout.h"
#include "kernel.h"

extern struct Map routes;
extern struct Map flows;
extern struct Map tunnel;
extern struct Map counters;
extern struct Map peer_counters;

extern char uplink;  // index of the device that carries the tunnel's datagrams
extern char tun;     // index of the tunnel's device
extern char local;   // this host's public address, in network order
extern char port;    // of the tunnel, in network order

enum {
  kFragment = 0x3fff,  // MF and the offset
  kDontFragment = 0x4000,
  kPlainHeader = 0x45,  // version 4, no options
  kOuterBytes = sizeof(struct iphdr) + sizeof(struct udphdr),
  kHeaderBytes = ETH_HLEN + kOuterBytes + sizeof(struct iphdr),
  kLargestInner = 0xffff - kOuterBytes,
  kOuterTtl = 64,            // IPDEFTTL, which the native tunnel's socket uses
  kTcpDataOffset = 12,       // byte of the TCP header
  kStreamPackets = 256,      // of a flow within a window: 185 Mb/s of full packets
  kStreamWindow = 16000000,  // ns; the clock moves on with the kernel's timer, every 1 to 10 ms
  kStreamTail = 128000000,   // ns
  kMark = 0x6b706174,        // and the index of the TUN, in front of a frame: receive_xdp has taken it
  kNext = TC_ACT_UNSPEC,     // TCX_NEXT: go on with what else is attached
  kTtlAt = 8,                // TTL, protocol and checksum are neighbours
};

/// The first bytes of a frame; `unused` aligns the rest, so that the outer header begins with a word.
struct __attribute__((aligned(8))) Headers {
  __u8 unused[2];
  struct ethhdr ethernet;
  struct iphdr outer;
  struct udphdr udp;
  struct iphdr inner;
};

/// Eight bytes of Headers, written at once.
typedef volatile __u64 __attribute__((may_alias)) Word;

/// Bytes kTtlAt and following of an IPv4 header.
struct TtlWord {
  __u8 ttl;
  __u8 protocol;
  __u16 checksum;
};

INLINE void add_traffic(struct KernelTraffic* traffic, __u64 packets, __u64 bytes) {
  traffic->packets += packets;
  traffic->bytes += bytes;
}

INLINE void count(__u32 counter, __u64 packets, __u64 bytes) {
  const __u32 place = bpf_get_smp_processor_id() * kKernelCounters + counter;
  struct KernelTraffic* traffic = bpf_map_lookup_elem(&counters, &place);
  if (traffic) add_traffic(traffic, packets, bytes);
}

/// Counts what is left to the native tunnel.
INLINE int leave(__u32 counter, int verdict, __u64 packets, __u64 bytes) {
  count(counter, packets, bytes);
  return verdict;
}

INLINE __u8 first_byte(const struct iphdr* ip) {
  return *(const __u8*)ip;
}

/// As decrement_ttl() in native/core/packet/ipv4.h, for a TTL above 1: a wrong checksum stays wrong.
INLINE struct TtlWord next_hop(const struct iphdr* ip) {
  __u32 sum = (__u32)NTOHS(ip->check) + 0x0100;
  sum += sum >= 0xffff;
  return (struct TtlWord){.ttl = ip->ttl - 1, .protocol = ip->protocol, .checksum = HTONS((__u16)sum)};
}

INLINE __u16 header_sum(const struct iphdr* ip) {
  const __u16* half = (const __u16*)ip;
  __u32 sum = 0;
#pragma unroll
  for (int i = 0; i < (int)(sizeof *ip / sizeof *half); i++) sum += half[i];
  sum = (sum & 0xffff) + (sum >> 16);
  return (__u16)(sum + (sum >> 16));
}

INLINE const struct KernelRoute* route_of(__u32 address) {
  const struct KernelRouteKey key = {.prefix_length = 32, .prefix = address};
  const struct KernelRoute* route = bpf_map_lookup_elem(&routes, &key);
  return route && route->outer ? route : 0;
}

INLINE void count_peer(const struct KernelRoute* route, int is_received, __u64 packets, __u64 bytes) {
  const __u32 place = bpf_get_smp_processor_id() * kKernelPeers + route->slot;
  struct KernelPeerTraffic* peer = bpf_map_lookup_elem(&peer_counters, &place);
  if (peer) add_traffic(is_received ? &peer->received : &peer->sent, packets, bytes);
}

/// Whether a packet itself protects its payload: IPv4 headers protect only themselves.
/// @param udp_checksum if it is one of UDP's
INLINE int has_checksum(__u8 protocol, __u16 udp_checksum) {
  return protocol == IPPROTO_TCP || protocol == IPPROTO_ICMP || (protocol == IPPROTO_UDP && udp_checksum != 0);
}

/// The kernel's own hash of a packet is none of the flow's: TCP takes another one whenever a path seems bad.
INLINE __u32 slot_of_flow(const struct iphdr* ip, __u32 ports) {
  const __u64 kGolden = 0x9e3779b97f4a7c15;
  const __u64 hash = (((__u64)ip->saddr << 32 | ip->daddr) * kGolden + ports) * kGolden;
  return (__u32)(hash >> (64 - kKernelFlowBits));
}

/// Whether a packet belongs to a flow that streams, which the tunnel carries better, and does while it says so. The rule:
///
///  - What waits for no answer counts: segments of super-packets, and datagrams. A TCP segment by itself is a request, a
///    response or an acknowledgement.
///  - More than kStreamPackets of that within kStreamWindow make a flow bulk, for kStreamTail more.
///
/// So a flow changes to the tunnel behind what the kernel has delivered already, and back when the tunnel has little of it,
/// once in kStreamTail at most. Two CPUs that send for one flow may each miss what the other one counts.
INLINE int is_bulk(const struct iphdr* ip, __u32 ports, __u64 packets) {
  const __u64 now = bpf_ktime_get_coarse_ns();
  const __u32 only = 0;
  const struct KernelTunnelState* state = bpf_map_lookup_elem(&tunnel, &only);
  if (!state || now >= state->bulk_until) return 0;
  const __u32 slot = slot_of_flow(ip, ports);
  struct KernelFlow* flow = bpf_map_lookup_elem(&flows, &slot);
  if (!flow) return 0;
  if (packets > 1 || ip->protocol == IPPROTO_UDP) {
    if (now - flow->window >= kStreamWindow) {
      flow->window = now;
      flow->streamed = 0;
    }
    flow->streamed += packets;
    if (flow->streamed > kStreamPackets) flow->bulk_until = now + kStreamTail;
  }
  return now < flow->bulk_until;
}

/// Bytes of the largest packet that `skb` is cut into; 0 if that cannot be told.
INLINE __u32 largest_segment(struct __sk_buff* skb, __u8 protocol) {
  if (skb->gso_size == 0) return skb->len;
  if (protocol == IPPROTO_UDP) return sizeof(struct iphdr) + sizeof(struct udphdr) + skb->gso_size;
  __u8 offset = 0;
  if (protocol != IPPROTO_TCP || bpf_skb_load_bytes(skb, sizeof(struct iphdr) + kTcpDataOffset, &offset, 1) < 0)
    return 0;
  return sizeof(struct iphdr) + (__u32)(offset >> 4) * 4 + skb->gso_size;
}

SECTION("send")
int send_to_uplink(struct __sk_buff* skb) {
  if (skb->protocol != HTONS(ETH_P_IP)) return kNext;
  const __u32 length = skb->len;
  const __u64 packets = skb->gso_segs > 1 ? skb->gso_segs : 1;
  struct Headers headers = {};
  struct iphdr* inner = &headers.inner;
  if (bpf_skb_load_bytes(skb, 0, inner, sizeof *inner) < 0) return leave(kSendNotPlain, kNext, packets, length);
  if (first_byte(inner) != kPlainHeader || (inner->frag_off & HTONS(kFragment)) || NTOHS(inner->tot_len) != length) {
    return leave(kSendNotPlain, kNext, packets, length);
  }
  if (skb->mark == kKernelProbeMark) return leave(kSendProbe, kNext, packets, length);
  const struct KernelRoute* route = route_of(inner->daddr);
  if (!route) return leave(kSendNoRoute, kNext, packets, length);
  if (route->mtu == 0) return leave(kSendNoPeer, kNext, packets, length);
  if (inner->ttl <= 1) return leave(kSendTtl, kNext, packets, length);
  struct udphdr udp = {};  // its ports are where those of TCP are
  if (inner->protocol == IPPROTO_UDP || inner->protocol == IPPROTO_TCP) {
    bpf_skb_load_bytes(skb, sizeof *inner, &udp, sizeof udp);
  }
  if (!has_checksum(inner->protocol, udp.check)) return leave(kSendUnprotected, kNext, packets, length);
  const __u32 segment = largest_segment(skb, inner->protocol);
  if (segment == 0) return leave(kSendNotPlain, kNext, packets, length);
  if (segment > route->mtu || length > kLargestInner) return leave(kSendOversize, kNext, packets, length);
  if (is_bulk(inner, (__u32)udp.source << 16 | udp.dest, packets)) return leave(kSendBulk, kNext, packets, length);

  // The TUN's MTU has room for the outer headers already, so segments keep their size.
  const __u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
                      BPF_F_ADJ_ROOM_NO_CSUM_RESET;
  if (bpf_skb_adjust_room(skb, kOuterBytes, BPF_ADJ_ROOM_MAC, flags) < 0) {
    return leave(kSendRefused, kNext, packets, length);
  }
  const struct TtlWord word = next_hop(inner);
  inner->ttl = word.ttl;
  inner->check = word.checksum;
  // Whole words, since Linux 6.1 takes a small number at the start of a word for a spilled register, and then refuses
  // the rest of that word to who has no CAP_PERFMON. A checksum of zero says that there is none (RFC 768).
  Word* outer = (Word*)&headers.outer;
  const Word address = (Word)CONSTANT(local) << 32;
  outer[0] = kPlainHeader | (Word)HTONS((__u16)(length + kOuterBytes)) << 16 | (Word)HTONS(kDontFragment) << 48;
  outer[1] = kOuterTtl | IPPROTO_UDP << 8 | address;
  outer[2] = route->outer | (Word)(__u16)CONSTANT(port) << 32 | (Word)(__u16)CONSTANT(port) << 48;
  const __u16 sum = (__u16)~header_sum(&headers.outer);
  outer[1] = kOuterTtl | IPPROTO_UDP << 8 | (Word)sum << 16 | address;
  headers.udp.len = HTONS((__u16)(length + sizeof headers.udp));
  // redirect_neigh() wants a link layer header to replace.
  headers.ethernet.h_proto = HTONS(ETH_P_IP);
  if (bpf_skb_change_head(skb, ETH_HLEN, 0) < 0 ||
      bpf_skb_store_bytes(skb, 0, &headers.ethernet, kHeaderBytes, 0) < 0) {
    return leave(kSendFailed, TC_ACT_SHOT, packets, length);
  }
  count(kSent, packets, length);
  count_peer(route, 0, packets, length);
  return (int)bpf_redirect_neigh(CONSTANT(uplink), 0, 0, 0);
}

/// What is found out about a frame.
struct Finding {
  const struct KernelRoute* route;  // of the sender, if the frame is to be taken
  __u32 counter;                    // else why not; kKernelCounterCount: it is none of the tunnel's
};

/// Examines a frame of `length` bytes, those from `data` to `end` of which can be read.
INLINE struct Finding examine(const void* data, const void* end, __u32 length) {
  const struct ethhdr* ethernet = data;
  const struct iphdr* outer = (const void*)(ethernet + 1);
  const struct udphdr* udp = (const void*)(outer + 1);
  const struct iphdr* inner = (const void*)(udp + 1);
  struct Finding finding = {.counter = kKernelCounterCount};
  if ((const void*)(inner + 1) > end || ethernet->h_proto != HTONS(ETH_P_IP)) return finding;
  if (first_byte(outer) != kPlainHeader || outer->protocol != IPPROTO_UDP || outer->daddr != CONSTANT(local) ||
      (outer->frag_off & HTONS(kFragment)) || udp->dest != (__u16)CONSTANT(port)) {
    return finding;
  }
  const __u32 inner_length = NTOHS(inner->tot_len);
  if (udp->check != 0) {
    finding.counter = kReceiveTunnel;
  } else if (first_byte(inner) != kPlainHeader || (inner->frag_off & HTONS(kFragment)) || header_sum(outer) != 0xffff) {
    finding.counter = kReceiveNotPlain;
  } else if (inner_length + ETH_HLEN + kOuterBytes != length || inner_length + kOuterBytes != NTOHS(outer->tot_len) ||
             inner_length + sizeof *udp != NTOHS(udp->len) || inner_length < sizeof *inner) {
    finding.counter = kReceiveLength;
  } else if (inner->ttl <= 1) {
    finding.counter = kReceiveTtl;
  } else {
    finding.counter = kReceiveSource;
    const struct KernelRoute* route = route_of(inner->saddr);
    if (route && route->outer == outer->saddr) finding.route = route;
  }
  return finding;
}

SECTION("receive_xdp")
int receive_before_gro(struct xdp_md* frame) {
  void* data = (void*)(long)frame->data;
  void* end = (void*)(long)frame->data_end;
  // The difference of the two would take CAP_PERFMON.
  const __u32 length = (__u32)bpf_xdp_get_buff_len(frame);
  const struct Finding finding = examine(data, end, length);
  const __u32 inner_length = length - ETH_HLEN - kOuterBytes;
  if (!finding.route) {
    if (finding.counter != kKernelCounterCount) count(finding.counter, 1, inner_length);
    return XDP_PASS;
  }
  if (bpf_xdp_adjust_meta(frame, -(int)sizeof(__u32)) < 0) return leave(kReceiveRefused, XDP_PASS, 1, inner_length);
  data = (void*)(long)frame->data;
  end = (void*)(long)frame->data_end;
  __u32* mark = (void*)(long)frame->data_meta;
  if ((void*)(mark + 1) > data || data + kHeaderBytes > end) return leave(kReceiveFailed, XDP_DROP, 1, inner_length);
  // Written here, since adjust_head moves it along, and would wait for memory that nobody has touched.
  *mark = kMark + CONSTANT(tun);
  struct iphdr* inner = data + ETH_HLEN + kOuterBytes;
  const struct TtlWord word = next_hop(inner);
  inner->ttl = word.ttl;
  inner->check = word.checksum;
  __builtin_memcpy(data + kOuterBytes, data, ETH_HLEN);
  if (bpf_xdp_adjust_head(frame, kOuterBytes) < 0) return leave(kReceiveFailed, XDP_DROP, 1, inner_length);
  count(kReceived, 1, inner_length);
  count_peer(finding.route, 1, 1, inner_length);
  return XDP_PASS;
}

SECTION("deliver")
int deliver_to_tun(struct __sk_buff* skb) {
  const __u32* mark = (void*)(long)skb->data_meta;
  if ((const void*)(mark + 1) > (void*)(long)skb->data || *mark != kMark + CONSTANT(tun)) return kNext;
  // Redirecting makes a frame one for this host, whoever it was for.
  if (skb->pkt_type != PACKET_HOST) return leave(kReceiveOtherHost, TC_ACT_SHOT, 1, skb->len - ETH_HLEN);
  // What the device says about a checksum, it says about the outer one.
  bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
  return (int)bpf_redirect(CONSTANT(tun), BPF_F_INGRESS);
}

SECTION("receive_tc")
int receive_after_gro(struct __sk_buff* skb) {
  if (skb->protocol != HTONS(ETH_P_IP) || skb->pkt_type != PACKET_HOST) return kNext;
  const __u32 length = skb->len;
  const void* data = (void*)(long)skb->data;
  const void* end = (void*)(long)skb->data_end;
  if (data + kHeaderBytes > end) {
    bpf_skb_pull_data(skb, length < kHeaderBytes ? length : kHeaderBytes);
    data = (void*)(long)skb->data;
    end = (void*)(long)skb->data_end;
  }
  const struct Finding finding = examine(data, end, length);
  const __u32 inner_length = length - ETH_HLEN - kOuterBytes;
  const __u64 packets = skb->gso_segs > 1 ? skb->gso_segs : 1;
  if (!finding.route) {
    if (finding.counter != kKernelCounterCount) count(finding.counter, packets, inner_length);
    return kNext;
  }
  const struct iphdr* inner = data + ETH_HLEN + kOuterBytes;
  if ((const void*)(inner + 1) > end) return kNext;
  const struct TtlWord word = next_hop(inner);
  // A number, as bytes one by one would be what Linux 6.1 refuses; see send_to_uplink().
  const volatile __u32 bytes = word.ttl | (__u32)word.protocol << 8 | (__u32)word.checksum << 16;
  if (bpf_skb_adjust_room(skb, -(int)kOuterBytes, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) < 0) {
    return leave(kReceiveRefused, kNext, packets, inner_length);
  }
  if (bpf_skb_store_bytes(skb, ETH_HLEN + kTtlAt, (const void*)&bytes, sizeof bytes, 0) < 0) {
    return leave(kReceiveFailed, TC_ACT_SHOT, packets, inner_length);
  }
  count(kReceived, packets, inner_length);
  count_peer(finding.route, 1, packets, inner_length);
  return (int)bpf_redirect(CONSTANT(tun), BPF_F_INGRESS);
}
