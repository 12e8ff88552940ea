// Buffers and messages for recvmmsg().
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "../base/kernel.h"

namespace tsflannel {

/// What one receive brought: one datagram, or with UDP_GRO several of one sender.
struct ReceivedMessage {
  std::span<uint8_t> data;    ///< in the ring; valid until the next receive()
  size_t segment_length = 0;  ///< every datagram in `data` has it but the last, which may be shorter; at least 1
  uint32_t outer_source = 0;  ///< address as a number
};

/// Receives into the same few buffers again and again, so that they stay in the cache. One thread.
class ReceiveRing {
 public:
  ReceiveRing();
  ReceiveRing(const ReceiveRing&) = delete;
  ReceiveRing& operator=(const ReceiveRing&) = delete;

  /// One recvmmsg() of at most `limit` messages; the number received, or -errno.
  ///
  /// After a message of more than 8 KiB only two buffers are offered at a time: bulk fills 64 KiB each, and what
  /// recvmmsg() brings beyond the L2 cache is slower than a second call.
  [[nodiscard]] int receive(Kernel& kernel, int socket, size_t limit);

  /// @param index below the result of receive()
  [[nodiscard]] ReceivedMessage message(size_t index) const;

  /// How many messages the last receive() could have brought.
  [[nodiscard]] size_t offered() const { return offered_; }

  static constexpr size_t kMessages = 32;

 private:
  // 65535 is the largest datagram, UDP_GRO included. The extra lines keep the starts of the buffers from competing for
  // the same sets of the cache.
  static constexpr size_t kBufferBytes = 65536;
  static constexpr size_t kStride = kBufferBytes + 5 * 64;
  static constexpr size_t kBulkBytes = 8192;
  static constexpr size_t kBulkMessages = 2;

  struct alignas(cmsghdr) Control {
    uint8_t bytes[CMSG_SPACE(sizeof(int))];
  };

  std::unique_ptr<uint8_t[]> buffers_;
  std::vector<mmsghdr> messages_;
  std::vector<iovec> parts_;
  std::vector<sockaddr_in> sources_;
  std::vector<Control> controls_;
  bool was_bulk_ = false;
  size_t offered_ = 0;
};

}  // namespace tsflannel
