// Cuts the super-packets that a TUN with offloads hands over into the packets a NIC would have put on the wire.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "../packet/ipv4.h"
#include "vnet_header.h"

namespace tsflannel {

/// What became of a packet in Segmenter::begin().
enum class SegmentStatus : uint8_t {
  kOk,
  kBadIpv4,           ///< parse_ipv4() rejects it, or bytes follow the total length of a super-packet
  kFragment,          ///< a super-packet that is a fragment
  kWrongProtocol,     ///< gso type and IP protocol differ
  kBadL4Header,       ///< TCP or UDP header does not fit into the packet
  kBadGsoType,        ///< a type that was not negotiated (UFO, TCPv6)
  kBadGsoSize,        ///< zero
  kBadChecksumField,  ///< csum_start and csum_offset lie outside the payload
};

/// One packet for the wire: its bytes are `header` followed by `payload`.
struct Segment {
  std::span<const uint8_t> header;   ///< empty when the whole packet is in `payload`
  std::span<const uint8_t> payload;  ///< points into the super-packet
};

/// How many packets begin() would make of `packet`, whose header is `ip`; 1 if it would reject it.
[[nodiscard]] size_t count_segments(const VnetHeader& vnet, std::span<const uint8_t> packet, const Ipv4View& ip);

/// Cuts one super-packet at a time; pure, no allocation, one thread.
///
///   begin(vnet, packet) == kOk
///   for (first = 0; first < count(); first += n)  emit(first, n, headers, iovecs)
///
/// All segments have segment_length() bytes but the last, which has last_length(): the shape that UDP_SEGMENT wants.
/// The payload is not copied: a segment is a header written into the caller's memory and a span of the super-packet, so
/// packet and headers must stay until the segments are sent. Segments can be emitted in any order and again.
///
/// The caller decrements the TTL of the super-packet, once, before begin().
class Segmenter {
 public:
  /// Checks `packet`, as read from the TUN behind `vnet`, and prepares for emit(). `vnet.header_length` is not used:
  /// the kernel calls it a hint, and the packet says it better.
  ///
  /// A packet that is no super-packet (gso none, or only one segment long) has its checksum finished in place if it
  /// lacks one. On any other result than kOk the packet is unchanged and must be dropped.
  [[nodiscard]] SegmentStatus begin(const VnetHeader& vnet, std::span<uint8_t> packet);

  /// As above for a packet that was parsed already: `ip` comes from parse_ipv4(packet).
  [[nodiscard]] SegmentStatus begin(const VnetHeader& vnet, std::span<uint8_t> packet, const Ipv4View& ip);

  /// Number of segments, at least 1.
  [[nodiscard]] size_t count() const { return count_; }
  /// Bytes of every segment but the last.
  [[nodiscard]] size_t segment_length() const { return segment_length_; }
  /// Bytes of the last segment: at most segment_length().
  [[nodiscard]] size_t last_length() const { return last_length_; }
  /// Bytes that emit() writes for each segment: 28…120, or 0 when count() is 1, since then the packet is sent as it is.
  [[nodiscard]] size_t header_length() const { return header_length_; }
  /// Entries that emit() writes for each segment: 1 when count() is 1, else 2.
  [[nodiscard]] size_t iovecs_per_segment() const { return header_length_ == 0 ? 1 : 2; }

  /// Writes the headers of segments `first` … `first + n - 1` back to back at `headers` (n × header_length() bytes) and
  /// their iovecs at `iovecs` (n × iovecs_per_segment()); returns the number of iovecs. first + n must not exceed
  /// count().
  size_t emit(size_t first, size_t n, uint8_t* headers, iovec* iovecs) const;

  /// Writes the header of segment `index` at `header` (header_length() bytes).
  [[nodiscard]] Segment segment(size_t index, uint8_t* header) const;

 private:
  SegmentStatus begin_tcp(const VnetHeader& vnet, const Ipv4View& ip);
  SegmentStatus begin_udp(const VnetHeader& vnet, const Ipv4View& ip);
  SegmentStatus begin_single(const VnetHeader& vnet, const Ipv4View& ip);
  void plan(const Ipv4View& ip, size_t l4_header_length, uint16_t gso_size);
  void write_fields(size_t index, uint8_t* header, size_t payload_length) const;

  uint8_t* packet_ = nullptr;  // of the caller
  size_t packet_length_ = 0;   // IP total length
  size_t count_ = 0;
  size_t segment_length_ = 0;
  size_t last_length_ = 0;
  size_t header_length_ = 0;  // IP and TCP/UDP header; 0 if the packet goes as it is
  size_t ip_header_length_ = 0;
  size_t gso_size_ = 0;
  uint64_t ip_sum_ = 0;    // IP header without total length, id, TTL/protocol and checksum
  uint64_t l4_sum_ = 0;    // pseudo header without length, L4 header without what changes per segment
  uint32_t sequence_ = 0;  // TCP
  uint16_t id_ = 0;
  uint16_t tcp_flags_ = 0;  // TCP: data offset and flags
  bool is_tcp_ = false;
  bool has_checksum_ = true;  // false: UDP without checksum
};

}  // namespace tsflannel
