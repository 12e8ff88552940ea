#include "coalescer.h"

#include <algorithm>

#include "../packet/checksum.h"
#include "../packet/ipv4.h"
#include "l4.h"

namespace tsflannel {
namespace {

constexpr size_t kTcp = kIpv4MinHeader;  // offset of the TCP or UDP header: packets with IP options never merge
constexpr size_t kUdp = kIpv4MinHeader;

uint64_t ports_key(const uint8_t* l4, uint8_t protocol) {
  return uint64_t{protocol} << 32 | load_raw32(l4 + kPorts);
}

bool tcp_checksum_ok(const uint8_t* packet, size_t length) {
  const auto l4_length = static_cast<uint16_t>(length - kTcp);
  const uint64_t pseudo = add_sums(sum_words(packet + kIpv4Source, 2), uint64_t{kProtocolTcp} + l4_length);
  return fold_sum(sum_bytes(packet + kTcp, l4_length, pseudo)) == 0xffff;
}

bool udp_checksum_ok(const uint8_t* packet, size_t length) {
  const auto l4_length = static_cast<uint16_t>(length - kUdp);
  const uint64_t pseudo = add_sums(sum_words(packet + kIpv4Source, 2), uint64_t{kProtocolUdp} + l4_length);
  return fold_sum(sum_bytes(packet + kUdp, l4_length, pseudo)) == 0xffff;
}

bool ip_checksum_ok(const uint8_t* packet) {
  return fold_sum(sum_words(packet, kIpv4MinHeader / 4)) == 0xffff;
}

// A merged packet is written with NEEDS_CSUM, so the stack takes its checksums as right: they have to be, in every
// part. inet_gro_receive() and skb_gro_checksum_validate() check the same.
bool checksums_ok(const uint8_t* packet, size_t length, bool is_tcp) {
  return ip_checksum_ok(packet) && (is_tcp ? tcp_checksum_ok(packet, length) : udp_checksum_ok(packet, length));
}

}  // namespace

Coalescer::Coalescer(size_t max_packets, const CoalescerOptions& options)
    : packets_(std::clamp<size_t>(max_packets, 1, kNoPacket - 1)),
      items_(packets_.size()),
      iovecs_(kCoalescerMaxSegments + 1) {
  set_options(options);
}

void Coalescer::set_options(const CoalescerOptions& options) {
  options_ = options;
  options_.max_bytes = std::min(options.max_bytes, kIpv4MaxPacket);
  options_.max_segments = std::clamp<size_t>(options.max_segments, 1, kCoalescerMaxSegments);
}

void Coalescer::reset() {
  packet_count_ = 0;
  item_count_ = 0;
  flow_count_ = 0;
  cursor_packet_ = kNoPacket;
}

bool Coalescer::add(std::span<uint8_t> packet) {
  if (packet_count_ == packets_.size()) return false;
  Candidate candidate;
  if (!classify(packet, candidate)) {
    close_flows_of(packet);
    add_item(packet);
    return true;
  }
  const FlowKey key{load_raw64(candidate.data + kIpv4Source),
                    ports_key(candidate.data + kTcp, candidate.data[kIpv4Protocol])};
  const size_t found = find_flow(key);
  if (found < flow_count_) {
    last_flow_ = found;
    if (append(flows_[found], candidate)) return true;
    start(flows_[found], candidate);
    return true;
  }
  start(claim_flow(key), candidate);
  return true;
}

// Says whether the headers of a packet allow merging it with others at all.
bool Coalescer::classify(std::span<uint8_t> packet, Candidate& candidate) const {
  uint8_t* data = packet.data();
  const size_t length = packet.size();
  // inet_gro_receive(): version 4 without options, total length is the packet's length, no fragment. We also leave the
  // reserved bit alone, which segmenting would repeat.
  if (length < kIpv4MinHeader + kUdpHeader + 1) return false;
  if (data[0] != 0x45 || load_be16(data + kIpv4TotalLength) != length) return false;
  if ((load_be16(data + kIpv4Fragment) & ~kIpv4DontFragment) != 0) return false;
  candidate.data = data;
  candidate.length = static_cast<uint16_t>(length);

  if (data[kIpv4Protocol] == kProtocolTcp) {
    if (!options_.merge_tcp || length < kTcp + kTcpMinHeader) return false;
    // tcp_gro_receive(): CWR is never merged; URG, PSH, RST, SYN and FIN end a run there. Here only PSH does, and the
    // others go alone, so that nothing depends on which segment the stack takes them to be in. Reserved bits must be 0.
    const uint8_t flags = data[kTcp + kTcpFlags];
    if ((flags & ~(kTcpPsh | kTcpEce)) != kTcpAckFlag || (data[kTcp + kTcpOffset] & 0x0f) != 0) return false;
    const size_t tcp_header_length = static_cast<size_t>(data[kTcp + kTcpOffset] >> 4) * 4;
    // skb_gro_len() == 0: a pure ACK says something by being there, so it is not merged.
    if (tcp_header_length < kTcpMinHeader || length <= kTcp + tcp_header_length) return false;
    candidate.header_length = static_cast<uint16_t>(kTcp + tcp_header_length);
    candidate.is_tcp = true;
    return true;
  }
  if (data[kIpv4Protocol] == kProtocolUdp) {
    if (!options_.merge_udp) return false;
    // udp_gro_receive_segment(): "requires non zero csum, for symmetry with GSO", and a length that is the packet's.
    if (load_raw16(data + kUdp + kUdpChecksum) == 0) return false;
    if (load_be16(data + kUdp + kUdpLength) != length - kUdp) return false;
    candidate.header_length = static_cast<uint16_t>(kUdp + kUdpHeader);
    candidate.is_tcp = false;
    return true;
  }
  return false;
}

// At least flow_count_ if there is none, as is what was found last before all flows were closed.
size_t Coalescer::find_flow(const FlowKey& key) const {
  if (keys_[last_flow_] == key) return last_flow_;
  size_t i = 0;
  while (i < flow_count_ && !(keys_[i] == key)) i++;
  return i;
}

Coalescer::Flow& Coalescer::claim_flow(const FlowKey& key) {
  if (flow_count_ < kFlows) {
    last_flow_ = flow_count_++;
  } else {
    last_flow_ = next_victim_;
    next_victim_ = (next_victim_ + 1) % kFlows;
  }
  keys_[last_flow_] = key;
  return flows_[last_flow_];
}

uint16_t Coalescer::add_packet(std::span<uint8_t> packet) {
  const auto index = static_cast<uint16_t>(packet_count_++);
  packets_[index] = {packet.data(), static_cast<uint16_t>(packet.size()), kNoPacket};
  return index;
}

Coalescer::Item& Coalescer::add_item(std::span<uint8_t> packet) {
  const uint16_t index = add_packet(packet);
  Item& item = items_[item_count_++];
  item = {};
  item.inner_bytes = static_cast<uint32_t>(packet.size());
  item.bytes = static_cast<uint16_t>(packet.size());
  item.first = index;
  item.last = index;
  item.count = 1;
  return item;
}

void Coalescer::start(Flow& flow, const Candidate& candidate) {
  flow.item = static_cast<uint16_t>(item_count_);
  Item& item = add_item({candidate.data, candidate.length});
  item.header_length = candidate.header_length;
  item.gso_size = static_cast<uint16_t>(candidate.length - candidate.header_length);
  flow.next_id = static_cast<uint16_t>(load_be16(candidate.data + kIpv4Id) + 1);
  flow.first_verified = false;
  flow.open = true;
  if (candidate.is_tcp) {
    flow.next_sequence = load_be32(candidate.data + kTcp + kTcpSequence) + item.gso_size;
    // tcp_gro_receive(): PSH ends a run.
    flow.open = (candidate.data[kTcp + kTcpFlags] & kTcpPsh) == 0;
  }
}

// Joins the packet to the flow's item, if that leaves every bit of it recoverable; else the caller starts the next
// item.
bool Coalescer::append(Flow& flow, const Candidate& candidate) {
  if (!flow.open) return false;
  Item& item = items_[flow.item];
  const uint8_t* first = packets_[item.first].data;
  const uint8_t* data = candidate.data;

  // inet_gro_receive(): same TTL, TOS and DF. Addresses, protocol and ports are in the key.
  uint32_t difference = static_cast<uint32_t>(first[kIpv4Tos] ^ data[kIpv4Tos]) |
                        static_cast<uint32_t>(first[kIpv4Ttl] ^ data[kIpv4Ttl]) |
                        static_cast<uint32_t>(load_raw16(first + kIpv4Fragment) ^ load_raw16(data + kIpv4Fragment)) |
                        static_cast<uint32_t>(item.header_length ^ candidate.header_length);
  // inet_gro_flush(): ids count up, as they will when the packet is segmented again. Under DF they mean nothing
  // (RFC 6864 section 4.1), and some senders leave them at 0.
  const uint16_t id = load_be16(data + kIpv4Id);
  const bool dont_fragment = (load_be16(data + kIpv4Fragment) & kIpv4DontFragment) != 0;
  if (!dont_fragment) difference |= static_cast<uint32_t>(id ^ flow.next_id);

  const uint8_t* tcp = data + kTcp;
  const size_t payload = size_t{candidate.length} - candidate.header_length;
  if (candidate.is_tcp) {
    const uint8_t* first_tcp = first + kTcp;
    // tcp_gro_receive(): sequence follows, same ack; same data offset, flags and window but for PSH (tcp_flag_word()).
    // The urgent pointer means nothing without URG, but segmenting would repeat it.
    difference |= load_be32(tcp + kTcpSequence) ^ flow.next_sequence;
    difference |= load_raw32(tcp + kTcpAck) ^ load_raw32(first_tcp + kTcpAck);
    difference |= (load_be32(tcp + kTcpOffset) ^ load_be32(first_tcp + kTcpOffset)) & ~(uint32_t{kTcpPsh} << 16);
    difference |= static_cast<uint32_t>(load_raw16(tcp + kTcpUrgent) ^ load_raw16(first_tcp + kTcpUrgent));
    if (difference == 0) {
      // tcp_gro_receive(): same options, timestamps included.
      for (size_t i = kTcpMinHeader; i < item.header_length - kTcp; i += 4) {
        difference |= load_raw32(tcp + i) ^ load_raw32(first_tcp + i);
      }
    }
  }
  // "if (len > mss) flush" in tcp_gro_receive(), "ulen > ntohs(uh2->len)" in udp_gro_receive_segment(); then
  // skb_gro_receive() for the total and UDP_GRO_CNT_MAX for the count.
  if (difference != 0 || payload > item.gso_size || item.bytes + payload > options_.max_bytes ||
      item.count >= options_.max_segments) {
    return false;
  }

  // Checking waits until there is something to merge: a packet that stays alone is checked by the stack.
  if (!flow.first_verified) {
    flow.first_verified = checksums_ok(first, packets_[item.first].length, candidate.is_tcp);
    if (!flow.first_verified) return false;
  }
  if (!checksums_ok(data, candidate.length, candidate.is_tcp)) return false;

  const uint16_t index = add_packet({candidate.data, candidate.length});
  packets_[item.last].next = index;
  item.last = index;
  item.count++;
  item.bytes = static_cast<uint16_t>(item.bytes + payload);
  item.inner_bytes += candidate.length;
  flow.next_sequence += static_cast<uint32_t>(payload);
  flow.next_id = static_cast<uint16_t>(flow.next_id + 1);
  // Only the last segment may be shorter or have PSH: "flush = len < mss; flush |= flags & PSH" in tcp_gro_receive(),
  // "merge the first packet shorter than gso_size" in udp_gro_receive_segment().
  flow.open = payload == item.gso_size && (!candidate.is_tcp || (tcp[kTcpFlags] & kTcpPsh) == 0);
  return true;
}

// Ends the items that later packets must not join because this one, which goes alone, would then be overtaken.
void Coalescer::close_flows_of(std::span<const uint8_t> packet) {
  if (flow_count_ == 0) return;
  if (packet.size() < kIpv4MinHeader) return;
  const uint64_t addresses = load_raw64(packet.data() + kIpv4Source);
  Ipv4View ip;
  if (parse_ipv4(packet, ip) == DropReason::kNone) {
    if (ip.protocol != kProtocolTcp && ip.protocol != kProtocolUdp) return;
    if (!ip.is_later_fragment() && ip.total_length >= ip.header_length + sizeof(uint32_t)) {
      const size_t found = find_flow({addresses, ports_key(packet.data() + ip.header_length, ip.protocol)});
      if (found < flow_count_) flows_[found].open = false;
      return;
    }
  }
  // Without ports that can be read it may belong to any flow between the two hosts.
  for (size_t i = 0; i < flow_count_; i++) {
    if (keys_[i].addresses == addresses) flows_[i].open = false;
  }
}

void Coalescer::finish() {
  for (size_t i = 0; i < item_count_; i++) {
    Item& item = items_[i];
    if (item.count == 1 || item.patched) continue;
    uint8_t* ip = packets_[item.first].data;
    uint8_t* l4 = ip + kTcp;
    const bool is_tcp = ip[kIpv4Protocol] == kProtocolTcp;
    uint8_t* checksum = l4 + (is_tcp ? kTcpChecksum : kUdpChecksum);
    const auto l4_length = static_cast<uint16_t>(item.bytes - kTcp);

    item.patched = true;
    item.saved_total_length = load_raw16(ip + kIpv4TotalLength);
    item.saved_ip_checksum = load_raw16(ip + kIpv4Checksum);
    item.saved_l4_checksum = load_raw16(checksum);
    store_be16(ip + kIpv4TotalLength, item.bytes);
    store_be16(ip + kIpv4Checksum, 0);
    store_be16(ip + kIpv4Checksum, finish_checksum(sum_words(ip, kIpv4MinHeader / 4)));
    if (is_tcp) {
      item.saved_tcp_flags = l4[kTcpFlags];
      const int push = packets_[item.last].data[kTcp + kTcpFlags] & kTcpPsh;
      l4[kTcpFlags] = static_cast<uint8_t>(l4[kTcpFlags] | push);
    } else {
      item.saved_udp_length = load_raw16(l4 + kUdpLength);
      store_be16(l4 + kUdpLength, l4_length);
    }
    // What NEEDS_CSUM expects in the field: the pseudo header's sum, not inverted.
    const uint64_t pseudo = add_sums(sum_words(ip + kIpv4Source, 2), uint64_t{ip[kIpv4Protocol]} + l4_length);
    store_be16(checksum, fold_sum(pseudo));
  }
}

size_t Coalescer::restore(size_t index) {
  Item& item = items_[index];
  if (!item.patched) return item.count;
  uint8_t* ip = packets_[item.first].data;
  uint8_t* l4 = ip + kTcp;
  store_raw16(ip + kIpv4TotalLength, item.saved_total_length);
  store_raw16(ip + kIpv4Checksum, item.saved_ip_checksum);
  if (ip[kIpv4Protocol] == kProtocolTcp) {
    l4[kTcpFlags] = item.saved_tcp_flags;
    store_raw16(l4 + kTcpChecksum, item.saved_l4_checksum);
  } else {
    store_raw16(l4 + kUdpLength, item.saved_udp_length);
    store_raw16(l4 + kUdpChecksum, item.saved_l4_checksum);
  }
  return item.count;
}

CoalescedItem Coalescer::item(size_t index) {
  const Item& item = items_[index];
  const Packet& first = packets_[item.first];
  vnet_ = {};
  iovecs_[0] = {&vnet_, kVnetHeaderSize};
  iovecs_[1] = {first.data, first.length};
  size_t used = 2;
  if (item.count > 1) {
    const bool is_tcp = first.data[kIpv4Protocol] == kProtocolTcp;
    vnet_.flags = kVnetNeedsChecksum;
    vnet_.gso_type = is_tcp ? kGsoTcpV4 : kGsoUdpL4;
    vnet_.header_length = item.header_length;
    vnet_.gso_size = item.gso_size;
    vnet_.csum_start = kTcp;
    vnet_.csum_offset = is_tcp ? kTcpChecksum : kUdpChecksum;
    for (uint16_t i = first.next; i != kNoPacket; i = packets_[i].next) {
      iovecs_[used++] = {packets_[i].data + item.header_length,
                         static_cast<size_t>(packets_[i].length - item.header_length)};
    }
  }
  return {{iovecs_.data(), used}, item.count, item.bytes, item.inner_bytes};
}

std::span<const iovec> Coalescer::original(size_t index, size_t nth) {
  if (cursor_packet_ == kNoPacket || cursor_item_ != index || nth < cursor_nth_) {
    cursor_item_ = index;
    cursor_nth_ = 0;
    cursor_packet_ = items_[index].first;
  }
  for (; cursor_nth_ < nth; cursor_nth_++) cursor_packet_ = packets_[cursor_packet_].next;
  const Packet& packet = packets_[cursor_packet_];
  vnet_ = {};
  iovecs_[0] = {&vnet_, kVnetHeaderSize};
  iovecs_[1] = {packet.data, packet.length};
  return {iovecs_.data(), 2};
}

}  // namespace tsflannel
