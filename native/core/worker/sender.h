// Sending a batch to the peers, whatever the kernel thinks of it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../udp/send_batch.h"
#include "../udp/udp_socket.h"
#include "icmp_sender.h"
#include "worker_context.h"

namespace tsflannel {

/// Owns the batch of one worker and gets it out; its thread only.
///
/// What the kernel may refuse, and the answer (an entry is sent, dropped with a reason, or kept; never two of these):
///
///   EAGAIN, ENOBUFS             socket full: the rest is kept for the next flush(); dropped when kBlockedLimit has
///                               passed
///   EIO, EINVAL, EMSGSIZE or    packet by packet. EMSGSIZE: the path MTU fell below our MTU (EINVAL before 6.14).
///   EOPNOTSUPP, several         EIO: the egress device cannot checksum (before 6.2 or so). EINVAL: a blackhole route,
///   packets                     too. Only if all of them pass was it UDP_SEGMENT itself, which then rests (see
///                               TunnelHealth)
///   EMSGSIZE, one packet        with inner DF: fragmentation needed goes to its source, and the packet is dropped;
///                               without: it is sent so that the kernel fragments the outer packet
///   anything else               dropped as send-error; a dead socket ends the tunnel
class Sender {
 public:
  Sender(WorkerContext& context, IcmpSender& icmp, const PathMtuProbe& path_mtu, uint16_t port)
      : context_(context), icmp_(icmp), path_mtu_(path_mtu), batch_(port) {}

  [[nodiscard]] SendBatch& batch() { return batch_; }

  /// Sends what is in the batch; false if part of it has to wait because the socket is full. The memory of the packets
  /// must stay as it is until this returns true.
  [[nodiscard]] bool flush();

  /// Whether flush() returned false last time.
  [[nodiscard]] bool is_blocked() const { return first_pending_ < batch_.size() && blocked_since_ns_ != 0; }

  /// Longest time that packets wait for a full socket: as long as the worst queue on a link worth using takes to drain,
  /// after which newer packets are worth more.
  static constexpr uint64_t kBlockedLimitNs = 20'000'000;

 private:
  enum class Outcome : uint8_t { kDone, kBlocked };

  [[nodiscard]] Outcome send_whole();
  [[nodiscard]] Outcome send_singly(SendEntry& entry);
  [[nodiscard]] Outcome handle_entry_error(SendEntry& entry, int code);
  [[nodiscard]] Outcome wait_or_drop(SendEntry& entry);
  void handle_too_big(SendEntry& entry, const mmsghdr& message, size_t length);
  [[nodiscard]] int send_once(mmsghdr* messages, unsigned count);
  void count_sent(const SendEntry& entry, size_t packets, size_t bytes);
  void drop_rest(SendEntry& entry, DropReason reason);

  WorkerContext& context_;
  IcmpSender& icmp_;
  const PathMtuProbe& path_mtu_;
  SendBatch batch_;
  size_t first_pending_ = 0;
  uint64_t blocked_since_ns_ = 0;  // 0: not blocked
};

}  // namespace tsflannel
