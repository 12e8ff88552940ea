#include "sender.h"

#include <algorithm>
#include <cerrno>

#include "../base/bytes.h"

namespace tsflannel {
namespace {

/// What an outer IPv4 and UDP header add.
constexpr uint16_t kEncapOverhead = 28;
/// Every host takes datagrams of so many bytes (RFC 791 section 3.1); for a path that the kernel tells nothing about.
constexpr uint16_t kFallbackPathMtu = 576;

/// Header of a packet whose bytes were checked when it was read from the TUN. The first part holds at least the IP
/// header and 8 bytes more, or the whole packet.
Ipv4View view_of(const iovec& first_part) {
  const auto* data = static_cast<const uint8_t*>(first_part.iov_base);
  Ipv4View view;
  view.data = data;
  view.header_length = static_cast<uint16_t>((data[0] & 0x0f) * 4);
  view.total_length = load_be16(data + kIpv4TotalLength);
  view.source = load_be32(data + kIpv4Source);
  view.destination = load_be32(data + kIpv4Destination);
  view.fragment = load_be16(data + kIpv4Fragment);
  view.ttl = data[kIpv4Ttl];
  view.protocol = data[kIpv4Protocol];
  return view;
}

}  // namespace

bool Sender::flush() {
  while (first_pending_ < batch_.size() && !context_.has_failed) {
    SendEntry& entry = batch_.entry(first_pending_);
    const Outcome outcome = entry.is_singly ? send_singly(entry) : send_whole();
    if (outcome == Outcome::kBlocked && !context_.has_failed) return false;
  }
  while (first_pending_ < batch_.size()) drop_rest(batch_.entry(first_pending_), DropReason::kSendError);
  batch_.clear();
  first_pending_ = 0;
  blocked_since_ns_ = 0;
  return true;
}

Sender::Outcome Sender::send_whole() {
  const size_t count = context_.health.offloads().has(Offload::kBatch) ? batch_.size() - first_pending_ : 1;
  const int sent = send_once(batch_.messages(first_pending_), static_cast<unsigned>(count));
  if (sent < 0) return handle_entry_error(batch_.entry(first_pending_), -sent);
  size_t packets = 0;
  for (int i = 0; i < sent; i++) {
    const SendEntry& entry = batch_.entry(first_pending_++);
    count_sent(entry, entry.packets, entry.bytes);
    packets += entry.packets;
  }
  context_.counters.packets_per_send.add(packets);
  blocked_since_ns_ = 0;
  return Outcome::kDone;
}

Sender::Outcome Sender::handle_entry_error(SendEntry& entry, int code) {
  if (code == EAGAIN || code == ENOBUFS) return wait_or_drop(entry);
  if (entry.packets > 1 && (code == EIO || code == EINVAL || code == EMSGSIZE || code == EOPNOTSUPP)) {
    if (code != EMSGSIZE) entry.suspicion = code;
    entry.is_singly = true;
    return Outcome::kDone;
  }
  if (code == EMSGSIZE) {
    entry.is_singly = true;
    return Outcome::kDone;
  }
  if (is_dead_descriptor(code)) context_.fail("send to a peer", code);
  drop_rest(entry, DropReason::kSendError);
  return Outcome::kDone;
}

Sender::Outcome Sender::send_singly(SendEntry& entry) {
  while (entry.next_packet < entry.packets) {
    size_t parts = 0;
    size_t length = 0;
    mmsghdr* message = batch_.single(first_pending_, parts, length);
    const int sent = send_once(message, 1);
    if (sent == -EAGAIN || sent == -ENOBUFS) return wait_or_drop(entry);
    if (sent < 0) entry.suspicion = 0;
    if (sent == -EMSGSIZE) {
      handle_too_big(entry, *message, length);
    } else if (sent < 0) {
      if (is_dead_descriptor(-sent)) context_.fail("send to a peer", -sent);
      context_.counters.drop(DropReason::kSendError);
    } else {
      count_sent(entry, 1, length);
      context_.counters.packets_per_send.add(1);
    }
    blocked_since_ns_ = 0;
    entry.next_packet++;
    entry.next_part = static_cast<uint16_t>(entry.next_part + parts);
  }
  if (entry.suspicion != 0) {
    context_.health.downgrade(Offload::kUdpSegment, "sendmmsg", entry.suspicion, monotonic_ns());
  }
  first_pending_++;
  return Outcome::kDone;
}

void Sender::handle_too_big(SendEntry& entry, const mmsghdr& message, size_t length) {
  const Ipv4View view = view_of(message.msg_hdr.msg_iov[0]);
  if (view.dont_fragment()) {
    const uint16_t known = path_mtu_.path_mtu(context_.kernel, entry.to.outer);
    const uint16_t path_mtu = known > kEncapOverhead ? known : kFallbackPathMtu;
    const auto inner_mtu = static_cast<uint16_t>(path_mtu - kEncapOverhead);
    icmp_.answer(IcmpError::kFragmentationNeeded, view, inner_mtu);
    context_.counters.drop(DropReason::kOversize);
    return;
  }
  mmsghdr again = message;
  allow_fragmentation(context_.kernel, context_.socket, true);
  const int sent = send_once(&again, 1);
  allow_fragmentation(context_.kernel, context_.socket, false);
  if (sent < 0) {
    context_.counters.drop(sent == -EAGAIN || sent == -ENOBUFS ? DropReason::kSendBlocked : DropReason::kSendError);
    return;
  }
  count_sent(entry, 1, length);
  context_.counters.packets_per_send.add(1);
}

Sender::Outcome Sender::wait_or_drop(SendEntry& entry) {
  const uint64_t now = monotonic_ns();
  if (blocked_since_ns_ == 0) blocked_since_ns_ = now;
  if (now - blocked_since_ns_ < kBlockedLimitNs) return Outcome::kBlocked;
  drop_rest(entry, DropReason::kSendBlocked);
  return Outcome::kDone;
}

int Sender::send_once(mmsghdr* messages, unsigned count) {
  for (;;) {
    context_.counters.socket_sends.add(1);
    const int sent = context_.kernel.sendmmsg(context_.socket, messages, count);
    if (sent != -EINTR) return sent;
  }
}

void Sender::count_sent(const SendEntry& entry, size_t packets, size_t bytes) {
  context_.counters.tx_packets.add(packets);
  context_.counters.tx_bytes.add(bytes);
  PeerCounters& peer = context_.peer_counters.at(entry.to.counter_slot);
  peer.tx_packets.add(packets);
  peer.tx_bytes.add(bytes);
}

void Sender::drop_rest(SendEntry& entry, DropReason reason) {
  context_.counters.drop(reason, size_t{entry.packets} - entry.next_packet);
  entry.next_packet = entry.packets;
  first_pending_++;
}

}  // namespace tsflannel
