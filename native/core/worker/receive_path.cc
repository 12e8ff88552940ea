#include "receive_path.h"

#include <algorithm>
#include <cerrno>

#include "../packet/ipv4.h"

namespace tsflannel {

ReceivePath::ReceivePath(WorkerContext& context, TunWriter& tun_writer)
    : context_(context),
      tun_writer_(tun_writer),
      coalescer_(kPacketsPerBatch, {.merge_tcp = false, .merge_udp = false}) {}

bool ReceivePath::run() {
  size_t messages = 0;
  size_t packets = 0;
  size_t bytes = 0;
  adopt_offloads();
  const size_t per_call = offloads_.has(Offload::kBatch) ? ReceiveRing::kMessages : 1;
  while (messages < kMessagesPerTurn && packets < kPacketsPerTurn && bytes < kBytesPerTurn && !context_.has_failed) {
    context_.counters.socket_receives.add(1);
    // What the latest message brought, the next ones are expected to bring.
    const size_t fitting = std::max<size_t>((kPacketsPerTurn - packets) / packets_per_message_, 1);
    const int received = ring_.receive(context_.kernel, context_.socket, std::min(per_call, fitting));
    if (received < 0) {
      if (received == -EINTR) continue;
      if (is_dead_descriptor(-received)) context_.fail("receive from the socket", -received);
      break;  // EAGAIN; or a transient lack of memory, for which the next turn tries again
    }
    for (int i = 0; i < received; i++) {
      const ReceivedMessage message = ring_.message(static_cast<size_t>(i));
      packets_per_message_ = accept(message);
      packets += packets_per_message_;
      bytes += message.data.size();
    }
    tun_writer_.write(coalescer_);
    messages += static_cast<size_t>(received);
    // Fewer than offered: the queue is empty, so save the call that would say so.
    if (static_cast<size_t>(received) < ring_.offered()) break;
  }
  return messages > 0;
}

/// @returns the number of datagrams in it
size_t ReceivePath::accept(const ReceivedMessage& message) {
  const ForwardingState& state = *context_.state;
  const PeerTable& table = *state.table;
  WorkerCounters& counters = context_.counters;
  if (message.data.empty()) {
    counters.drop(DropReason::kShort);
    return 1;
  }
  const size_t datagrams = (message.data.size() + message.segment_length - 1) / message.segment_length;
  const uint32_t sender = table.find_outer(message.outer_source);
  if (sender == kNoPeer && state.verify_source != VerifySource::kOff) {
    counters.drop(DropReason::kSourceUnknown, datagrams);
    return datagrams;
  }
  size_t packets = 0;
  size_t bytes = 0;
  for (size_t at = 0; at < message.data.size(); at += message.segment_length) {
    const size_t length = std::min(message.segment_length, message.data.size() - at);
    const std::span<uint8_t> packet = message.data.subspan(at, length);
    const DropReason reason = check(packet, message.outer_source);
    if (reason != DropReason::kNone) {
      counters.drop(reason);
      continue;
    }
    if (!decrement_ttl(packet.data())) {
      counters.drop(DropReason::kTtlExpired);
      continue;
    }
    if (!coalescer_.add(packet)) {
      tun_writer_.write(coalescer_);
      (void)coalescer_.add(packet);  // an empty one has room
    }
    packets++;
    bytes += length;
  }
  if (sender != kNoPeer && packets > 0) {
    PeerCounters& peer = context_.peer_counters.at(state.counter_slots[sender]);
    peer.rx_packets.add(packets);
    peer.rx_bytes.add(bytes);
  }
  return datagrams;
}

DropReason ReceivePath::check(std::span<const uint8_t> packet, uint32_t outer_source) const {
  const ForwardingState& state = *context_.state;
  Ipv4View ip;
  const DropReason reason = parse_ipv4_exact(packet, ip);
  if (reason != DropReason::kNone) return reason;
  // One that is longer than the TUN's MTU came in outer fragments or over a wider link, whole. The kernel forwards it
  // in fragments or tells its sender what fits, as any router does.
  if (state.verify_source == VerifySource::kOff) return DropReason::kNone;
  if (state.is_own(ip.source)) return DropReason::kSourceSpoofed;
  if (state.verify_source == VerifySource::kStrict && !state.table->is_source_allowed(outer_source, ip.source)) {
    return DropReason::kSourceSpoofed;
  }
  return DropReason::kNone;
}

void ReceivePath::adopt_offloads() {
  const OffloadSet offloads = context_.health.offloads();
  if (offloads.bits() == offloads_.bits()) return;
  offloads_ = offloads;
  CoalescerOptions options = coalescer_.options();
  options.merge_tcp = offloads.has(Offload::kTcpMerge);
  options.merge_udp = offloads.has(Offload::kUdpMerge);
  coalescer_.set_options(options);
}

}  // namespace tsflannel
