// From the TUN to the peers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "../offload/segmenter.h"
#include "../offload/vnet_header.h"
#include "lane_schedule.h"
#include "sender.h"
#include "tun_writer.h"
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
  TransmitPath(WorkerContext& context, TunWriter& tun_writer, Sender& sender);
  TransmitPath(const TransmitPath&) = delete;
  TransmitPath& operator=(const TransmitPath&) = delete;

  /// One turn with some of the lanes; false if there was nothing to do.
  bool run(LaneSet lanes = kAllLanes);

  /// Packets wait for the socket: poll it for POLLOUT instead of the TUN for POLLIN.
  [[nodiscard]] bool is_blocked() const { return sender_.is_blocked(); }

 private:
  // Most that one read brings: the largest IP packet behind its vnet header.
  static constexpr size_t kReadBytes = kVnetHeaderSize + kIpv4MaxPacket;
  // Reads and bytes of one turn; they bound how long the other direction has to wait.
  static constexpr size_t kReadsPerTurn = kMaxEntries;
  static constexpr size_t kBytesPerTurn = 2 * kReadBytes;
  // One lane gets half a turn at most before the other: so many packets, or a large one.
  static constexpr LaneSchedule::Visit kLongestVisit = {.packets = kReadsPerTurn / 2, .bytes = kReadBytes / 2};
  // Room for a turn, whose last packet may be a large one: small enough to stay in the L2 cache.
  static constexpr size_t kArenaBytes = kBytesPerTurn + kReadBytes + 2 * 64;
  // Headers of the longest usual batch: three super-packets of 46 segments, 120 bytes each at most.
  static constexpr size_t kHeaderBytes = 3 * 46 * 120;

  bool make_room();
  void accept(std::span<uint8_t> frame);
  void reject_oversize(const Ipv4View& ip, size_t packets);
  [[nodiscard]] bool queue_segments();
  [[nodiscard]] bool flush();

  WorkerContext& context_;
  TunWriter& tun_writer_;
  Sender& sender_;
  Segmenter segmenter_;
  LaneSchedule schedule_;
  Destination to_;           // of the packet in the segmenter
  size_t next_segment_ = 0;  // of the packet in the segmenter; segment_count_ when all are queued
  size_t segment_count_ = 0;
  size_t arena_used_ = 0;
  size_t headers_used_ = 0;
  std::unique_ptr<uint8_t[]> arena_;
  std::unique_ptr<uint8_t[]> headers_;
};

}  // namespace tsflannel
