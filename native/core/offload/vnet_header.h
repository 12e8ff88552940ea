// The header in front of every packet of a TUN with IFF_VNET_HDR (linux/virtio_net.h).
#pragma once

#include <cstddef>
#include <cstdint>

namespace tsflannel {

/// `struct virtio_net_hdr`. TUN uses the host's byte order unless TUNSETVNETBE or TUNSETVNETLE was called, so the
/// struct can be read and written as it is.
struct VnetHeader {
  uint8_t flags = 0;           ///< kVnetNeedsChecksum or 0
  uint8_t gso_type = 0;        ///< kGso…
  uint16_t header_length = 0;  ///< hdr_len: bytes of IP and TCP/UDP header; only a hint, never to be trusted
  uint16_t gso_size = 0;       ///< payload bytes of each segment but the last
  uint16_t csum_start = 0;     ///< where summing starts, from the start of the IP header
  uint16_t csum_offset = 0;    ///< where the checksum field is, from csum_start
};

/// Bytes of the header on the TUN (TUNSETVNETHDRSZ default).
inline constexpr size_t kVnetHeaderSize = 10;
static_assert(sizeof(VnetHeader) == kVnetHeaderSize);

inline constexpr uint8_t kVnetNeedsChecksum = 1;  // VIRTIO_NET_HDR_F_NEEDS_CSUM
inline constexpr uint8_t kGsoNone = 0;            // VIRTIO_NET_HDR_GSO_NONE
inline constexpr uint8_t kGsoTcpV4 = 1;           // VIRTIO_NET_HDR_GSO_TCPV4
inline constexpr uint8_t kGsoUdpL4 = 5;           // VIRTIO_NET_HDR_GSO_UDP_L4, Linux 6.2
inline constexpr uint8_t kGsoEcn = 0x80;  // VIRTIO_NET_HDR_GSO_ECN, or-ed to kGsoTcpV4: the first segment has CWR

}  // namespace tsflannel
