// From the peers to the TUN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "../offload/coalescer.h"
#include "../udp/receive_ring.h"
#include "tun_writer.h"
#include "worker_context.h"

namespace tsflannel {

/// One worker's receive direction; its thread only.
///
/// run() takes what the socket has, up to the length of a turn; cuts it into datagrams, checks each, joins consecutive
/// segments and writes the result to the TUN before it receives again: nothing is held back for more to come.
class ReceivePath {
 public:
  ReceivePath(WorkerContext& context, TunWriter& tun_writer);
  ReceivePath(const ReceivePath&) = delete;
  ReceivePath& operator=(const ReceivePath&) = delete;

  /// One turn; false if there was nothing to do.
  bool run();

 private:
  // Messages, datagrams and bytes of one turn; they bound how long the other direction has to wait. Twice 64 KiB of
  // bulk are some 50 µs; with eight times, one ping in a hundred took twice as long under load.
  static constexpr size_t kMessagesPerTurn = 64;
  static constexpr size_t kPacketsPerTurn = 512;
  static constexpr size_t kBytesPerTurn = 2 * 65536;
  // As many as the messages of one call hold when each brings 64 datagrams (UDP_GRO_CNT_MAX).
  static constexpr size_t kPacketsPerBatch = ReceiveRing::kMessages * 64;

  size_t accept(const ReceivedMessage& message);
  [[nodiscard]] DropReason check(std::span<const uint8_t> packet, uint32_t outer_source) const;
  void adopt_offloads();

  WorkerContext& context_;
  TunWriter& tun_writer_;
  ReceiveRing ring_;
  Coalescer coalescer_;
  OffloadSet offloads_;
  size_t packets_per_message_ = 1;  // of the latest message
};

}  // namespace tsflannel
