// From the TUN to the peers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "../offload/segmenter.h"
#include "../offload/vnet_header.h"
#include "icmp_sender.h"
#include "lane_schedule.h"
#include "sender.h"
#include "worker_context.h"

namespace tsflannel {

/// One worker's transmit direction; its thread only.
///
/// run() reads packets, from lane to lane (see LaneSchedule), until the TUN is dry or its turn is over, cuts each into
/// what goes on the wire, and sends them. Payload is never copied: what is sent lies in the arena where it was read,
/// and is overwritten only once it is gone. While the socket is full nothing is read, so that the queue of the TUN, and
/// through it the sender, feels it.
class TransmitPath {
 public:
  TransmitPath(WorkerContext& context, IcmpSender& icmp, Sender& sender);
  TransmitPath(const TransmitPath&) = delete;
  TransmitPath& operator=(const TransmitPath&) = delete;

  /// One turn with some of the lanes; false if there was nothing to do.
  bool run(LaneSet lanes = kAllLanes);

  /// Packets wait for the socket: poll it for POLLOUT instead of the TUN for POLLIN.
  [[nodiscard]] bool is_blocked() const { return sender_.is_blocked(); }

 private:
  // Most that one read brings: the largest IP packet behind its vnet header.
  static constexpr size_t kReadBytes = kVnetHeaderSize + kIpv4MaxPacket;
  // Reads, packets for the wire and bytes of one turn; they bound how long the other direction has to wait. Bytes bound
  // full segments, of which a turn has some 140; of segments of 76 bytes one read can bring 860, and most wait.
  static constexpr size_t kReadsPerTurn = kMaxEntries;
  static constexpr size_t kPacketsPerTurn = 3 * kMaxSegments;
  static constexpr size_t kBytesPerTurn = 2 * kReadBytes;
  // One lane gets half a turn at most before the other: so many packets, or a large one.
  static constexpr LaneSchedule::Visit kLongestVisit = {.packets = kReadsPerTurn / 2, .bytes = kReadBytes / 2};
  // Room for a turn, whose last packet may be a large one: small enough to stay in the L2 cache.
  static constexpr size_t kArenaBytes = kBytesPerTurn + kReadBytes + 2 * 64;
  // Headers of a turn, each 120 bytes at most (see Segmenter::header_length()).
  static constexpr size_t kHeaderBytes = kPacketsPerTurn * 120;

  bool make_room();
  size_t accept(std::span<uint8_t> frame);
  size_t drop(DropReason reason, size_t packets);
  size_t drop_oversize(const Ipv4View& ip, size_t packets);
  [[nodiscard]] bool queue_segments();
  [[nodiscard]] bool flush();

  WorkerContext& context_;
  IcmpSender& icmp_;
  Sender& sender_;
  Segmenter segmenter_;
  LaneSchedule schedule_;
  Destination to_;           // of the packet in the segmenter
  size_t next_segment_ = 0;  // of the packet in the segmenter; segment_count_ when all are queued
  size_t segment_count_ = 0;
  size_t queued_ = 0;  // packets, in this turn
  size_t arena_used_ = 0;
  size_t headers_used_ = 0;
  std::unique_ptr<uint8_t[]> arena_;
  std::unique_ptr<uint8_t[]> headers_;
};

}  // namespace tsflannel
