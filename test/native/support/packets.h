// Builders of packets, and slow, obvious versions of what the packet core does. Nothing here uses the code under test.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "../../../native/core/offload/vnet_header.h"
#include "harness.h"

namespace tsflannel::testing {

using Bytes = std::vector<uint8_t>;

constexpr uint32_t ipv4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
  return uint32_t{a} << 24 | uint32_t{b} << 16 | uint32_t{c} << 8 | d;
}

/// What a built IPv4 header says; addresses from RFC 5737.
struct Ip {
  uint32_t source = ipv4(192, 0, 2, 1);
  uint32_t destination = ipv4(198, 51, 100, 2);
  uint8_t tos = 0;
  uint8_t ttl = 64;
  uint16_t id = 0x1234;
  uint16_t fragment = 0x4000;
  Bytes options = {};  // a multiple of 4 bytes
};

/// What a built TCP header says.
struct Tcp {
  uint16_t source_port = 40000;
  uint16_t destination_port = 443;
  uint32_t sequence = 1000;
  uint32_t ack = 2000;
  uint8_t flags = 0x10;
  uint8_t reserved = 0;  // low 4 bits of the data offset byte
  uint16_t window = 512;
  uint16_t urgent = 0;
  Bytes options = {};  // a multiple of 4 bytes
};

/// What a built UDP header says.
struct Udp {
  uint16_t source_port = 40000;
  uint16_t destination_port = 53;
  bool checksum = true;
};

/// `length` bytes that depend on their position in the stream and on `start`.
Bytes pattern(size_t length, uint32_t start = 0);

/// TCP timestamps with padding, 12 bytes.
Bytes timestamps(uint32_t value, uint32_t echo);

/// An IPv4 packet with right checksums.
Bytes make_ip(const Ip& ip, uint8_t protocol, const Bytes& l4);
Bytes make_tcp(const Ip& ip, const Tcp& tcp, const Bytes& payload);
Bytes make_udp(const Ip& ip, const Udp& udp, const Bytes& payload);

uint16_t get16(const Bytes& data, size_t at);
uint32_t get32(const Bytes& data, size_t at);
void put16(Bytes& data, size_t at, uint16_t value);
void put32(Bytes& data, size_t at, uint32_t value);

/// RFC 1071 by the letter: 16 bits at a time, carry wrapped each time. The folded sum, not inverted.
uint16_t slow_sum(std::span<const uint8_t> data, uint32_t initial = 0);

/// Sum of the pseudo header and everything behind the IP header.
uint16_t slow_l4_sum(const Bytes& packet);

bool ip_checksum_right(const Bytes& packet);
/// TCP or UDP; a UDP checksum of zero counts as right.
bool l4_checksum_right(const Bytes& packet);
void fill_ip_checksum(Bytes& packet);
void fill_l4_checksum(Bytes& packet);

/// The packets that a super-packet stands for; none if it is not a valid one.
std::optional<std::vector<Bytes>> slow_segment(const VnetHeader& vnet, const Bytes& packet);

/// All bytes that iovecs point to, from the `skip`th entry on.
Bytes gather(std::span<const iovec> iovecs, size_t skip = 0);

/// The first bytes in hex, for messages.
std::string hex(const Bytes& data, size_t limit = 80);

}  // namespace tsflannel::testing
