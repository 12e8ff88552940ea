#include "transmit_path.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tsflannel {
namespace {

constexpr size_t kCacheLine = 64;

size_t round_up(size_t bytes) {
  return (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
}

}  // namespace

TransmitPath::TransmitPath(WorkerContext& context, IcmpSender& icmp, Sender& sender)
    : context_(context),
      icmp_(icmp),
      sender_(sender),
      schedule_(context.lanes.size(), kLongestVisit),
      arena_(new uint8_t[kArenaBytes]),
      headers_(new uint8_t[kHeaderBytes]) {}

bool TransmitPath::run(LaneSet lanes) {
  // First what the last turn left behind.
  if (sender_.batch().size() > 0 && !flush()) return false;
  queued_ = 0;
  if (!queue_segments()) return true;
  size_t reads = 0;
  size_t bytes = 0;
  schedule_.begin_turn(lanes);
  while (!schedule_.is_dry() && reads < kReadsPerTurn && queued_ < kPacketsPerTurn && bytes < kBytesPerTurn &&
         !context_.has_failed) {
    if (!make_room()) return true;
    uint8_t* frame = arena_.get() + arena_used_;
    context_.counters.tun_reads.add(1);
    const ssize_t size = context_.kernel.read(context_.lanes[schedule_.lane()], frame, kReadBytes);
    if (size == 0 || size == -EAGAIN) {
      schedule_.ran_dry();
      continue;
    }
    reads++;
    if (size < 0) {
      const auto code = static_cast<int>(-size);
      if (code == EINTR) continue;
      if (is_dead_descriptor(code)) {
        context_.fail("read from the TUN", code);
      } else {
        // The kernel took a packet off the queue and could not hand it over, such as one with an unknown GSO type.
        context_.counters.drop(DropReason::kTunError);
      }
      continue;
    }
    bytes += static_cast<size_t>(size);
    schedule_.took(accept({frame, static_cast<size_t>(size)}), static_cast<size_t>(size));
    if (!queue_segments()) return true;
  }
  // What is left on a full socket is taken up by the next turn.
  if (sender_.batch().size() > 0) (void)flush();
  return reads > 0;
}

/// Makes sure that the largest packet can be read; false if that has to wait for the socket.
bool TransmitPath::make_room() {
  if (arena_used_ + kReadBytes <= kArenaBytes) return true;
  return flush();
}

bool TransmitPath::flush() {
  if (!sender_.flush()) return false;
  headers_used_ = 0;
  // The packet that is still being cut must stay where it is.
  if (next_segment_ == segment_count_) arena_used_ = 0;
  return true;
}

/// Checks what was read and, if it is to be forwarded, puts it into the segmenter.
/// @returns the number of packets it stands for
size_t TransmitPath::accept(std::span<uint8_t> frame) {
  VnetHeader vnet;
  std::span<uint8_t> packet = frame;
  if (context_.has_vnet_header) {
    if (frame.size() < sizeof vnet) return drop(DropReason::kShort, 1);
    std::memcpy(&vnet, frame.data(), sizeof vnet);
    packet = frame.subspan(sizeof vnet);
  }
  const ForwardingState& state = *context_.state;

  Ipv4View ip;
  const DropReason reason = parse_ipv4(packet, ip);
  if (reason != DropReason::kNone) return drop(reason, 1);

  // The route comes before the TTL, as in flannel: an expired packet to nowhere is answered with unreachable.
  const uint32_t peer = state.table->lookup(ip.destination);
  if (peer == kNoPeer) {
    icmp_.answer(IcmpError::kNetUnreachable, ip);
    return drop(DropReason::kNoRoute, count_segments(vnet, packet, ip));
  }
  if (ip.ttl <= 1) {
    icmp_.answer(IcmpError::kTimeExceeded, ip);
    return drop(DropReason::kTtlExpired, count_segments(vnet, packet, ip));
  }
  // Before the TTL changes, so that the answer quotes the packet as it was sent.
  if (vnet.gso_type == kGsoNone && ip.total_length > state.mtu) return drop_oversize(ip, 1);
  (void)decrement_ttl(packet.data());
  if (segmenter_.begin(vnet, packet, ip) != SegmentStatus::kOk) return drop(DropReason::kBadHeader, 1);
  const size_t count = segmenter_.count();
  if (segmenter_.segment_length() > state.mtu) return drop_oversize(ip, count);

  context_.counters.packets_per_read.add(count);
  to_ = {state.table->peer(peer).outer, state.counter_slots[peer]};
  next_segment_ = 0;
  segment_count_ = count;
  arena_used_ = round_up(arena_used_ + frame.size());
  return count;
}

size_t TransmitPath::drop(DropReason reason, size_t packets) {
  context_.counters.drop(reason, packets);
  return packets;
}

size_t TransmitPath::drop_oversize(const Ipv4View& ip, size_t packets) {
  if (ip.dont_fragment()) icmp_.answer(IcmpError::kFragmentationNeeded, ip, context_.state->mtu);
  return drop(DropReason::kOversize, packets);
}

/// Puts the segments of the current packet into the batch; false if that has to wait, for the socket or for the next
/// turn.
bool TransmitPath::queue_segments() {
  while (next_segment_ < segment_count_ && !context_.has_failed) {
    if (queued_ >= kPacketsPerTurn) {
      (void)flush();
      return false;
    }
    const size_t last = segment_count_ - 1;
    const bool is_last = next_segment_ == last;
    const size_t length = is_last ? segmenter_.last_length() : segmenter_.segment_length();
    // Segments of equal length at once; a shorter last one by itself.
    const bool is_last_equal = segmenter_.last_length() == segmenter_.segment_length();
    const size_t equal = is_last ? 1 : last - next_segment_ + (is_last_equal ? 1 : 0);

    const size_t wanted = std::min(equal, kPacketsPerTurn - queued_);
    const bool may_segment = context_.health.offloads().has(Offload::kUdpSegment);
    const SendBatch::Room room = sender_.batch().reserve(to_, length, wanted, may_segment);
    if (room.packets == 0) {
      if (!flush()) return false;
      continue;
    }
    uint8_t* headers = headers_.get() + headers_used_;
    const size_t parts = segmenter_.emit(next_segment_, room.packets, headers, room.parts);
    sender_.batch().commit(room, room.packets, length, parts);
    headers_used_ += room.packets * segmenter_.header_length();
    next_segment_ += room.packets;
    queued_ += room.packets;
  }
  // Left over only when the tunnel has failed.
  context_.counters.drop(DropReason::kSendError, segment_count_ - next_segment_);
  next_segment_ = segment_count_;
  return true;
}

}  // namespace tsflannel
