// Groups packets for one sendmmsg().
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "udp_socket.h"

namespace tsflannel {

/// Most datagrams of one UDP_SEGMENT send: UDP_MAX_SEGMENTS was 64 from 4.18 to 6.8 (128 since). At 1472 bytes the
/// payload limit below ends a send at 44, so the higher limit would only help packets below 1 KiB.
inline constexpr size_t kMaxSegments = 64;
/// Payload of the largest UDP datagram over IPv4: 65535 - 20 - 8; a UDP_SEGMENT send counts as one (udp_sendmsg()).
inline constexpr size_t kMaxUdpPayload = 65507;
/// One wake-up reads at most so many small packets; a batch of singles of them is one sendmmsg().
inline constexpr size_t kMaxEntries = 64;
/// A packet is a header and a payload, or only one of them.
inline constexpr size_t kMaxPartsPerPacket = 2;

/// Where packets go, and whose counters they are.
struct Destination {
  uint32_t outer = 0;         ///< address as a number
  uint32_t counter_slot = 0;  ///< see PeerCounterTable
};

/// Packets of one peer that leave as one message: all as long as the first, the last possibly shorter.
struct SendEntry {
  Destination to;
  uint32_t bytes = 0;
  uint16_t segment_length = 0;
  uint16_t packets = 0;
  uint16_t parts = 0;      ///< iovecs
  bool is_closed = false;  ///< a shorter packet was added: nothing may follow it

  // While its packets go out one by one, after the kernel refused the whole.
  bool is_singly = false;
  int suspicion = 0;  ///< errno of the whole that may have been about UDP_SEGMENT; 0 once a single was refused, too
  uint16_t next_packet = 0;
  uint16_t next_part = 0;
};

/// Builds entries and the messages for them; borrows the packets until clear(). Pure, no allocation after
/// construction, one thread.
class SendBatch {
 public:
  /// @param port destination port of every peer
  explicit SendBatch(uint16_t port);
  SendBatch(const SendBatch&) = delete;
  SendBatch& operator=(const SendBatch&) = delete;

  /// Room for packets in one entry.
  struct Room {
    uint32_t entry = 0;
    uint16_t packets = 0;    ///< 0: the batch is full
    iovec* parts = nullptr;  ///< kMaxPartsPerPacket × packets
  };

  /// Finds room for up to `wanted` packets of `length` bytes (1…65507).
  ///
  /// The order of packets to one peer is kept; those of different peers may change places.
  [[nodiscard]] Room reserve(const Destination& to, size_t length, size_t wanted, bool may_segment);

  /// Tells how many packets of `length` bytes were put into `room`, `parts` iovecs in all.
  void commit(const Room& room, size_t packets, size_t length, size_t parts);

  [[nodiscard]] size_t size() const { return entry_count_; }
  [[nodiscard]] SendEntry& entry(size_t index) { return entries_[index]; }
  [[nodiscard]] const iovec* parts(size_t index) const { return &parts_[index * kPartsPerEntry]; }

  /// Messages for the entries `first` … size() - 1; valid until the next call or change.
  [[nodiscard]] mmsghdr* messages(size_t first);

  /// Message for the next packet of an entry that goes singly; its parts are counted in `parts`.
  [[nodiscard]] mmsghdr* single(size_t index, size_t& parts, size_t& length);

  void clear() { entry_count_ = 0; }

 private:
  static constexpr size_t kPartsPerEntry = kMaxSegments * kMaxPartsPerPacket;
  static constexpr size_t kControlBytes = CMSG_SPACE(sizeof(uint16_t));

  struct alignas(cmsghdr) Control {
    uint8_t bytes[kControlBytes];
  };

  void address_message(mmsghdr& message, size_t index);

  size_t entry_count_ = 0;
  std::vector<SendEntry> entries_;
  std::unique_ptr<iovec[]> parts_;  // kPartsPerEntry for each entry; most are never touched
  std::vector<mmsghdr> messages_;
  std::vector<sockaddr_in> addresses_;
  std::vector<Control> controls_;
};

}  // namespace tsflannel
