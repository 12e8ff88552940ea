// Input: 8 bytes of source address, kind and MTU, then a packet. Whatever is in it, an ICMP error is well-formed,
// quotes only what is there, and is never sent about an ICMP error; decrementing the TTL keeps a right checksum right.
#include <algorithm>
#include <cstdlib>
#include <memory>

#include "../../../native/core/packet/icmp.h"
#include "../support/packets.h"

using namespace tsflannel;
using namespace tsflannel::testing;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 8) return 0;
  const uint32_t source = load_be32(data);
  const auto error = static_cast<IcmpError>(data[4] % kIcmpErrorCount);
  const uint16_t mtu = load_be16(data + 6);
  const size_t length = size - 8;
  const auto memory = std::make_unique<uint8_t[]>(length);
  std::copy(data + 8, data + size, memory.get());

  Ipv4View ip;
  const DropReason reason = parse_ipv4({memory.get(), length}, ip);
  Ipv4View exact;
  const DropReason exact_reason = parse_ipv4_exact({memory.get(), length}, exact);
  require(exact_reason != DropReason::kNone || (reason == DropReason::kNone && exact.total_length == length));
  if (reason != DropReason::kNone) return 0;
  require(ip.header_length >= 20 && ip.header_length <= ip.total_length && ip.total_length <= length);

  uint8_t out[kIcmpMaxError];
  const size_t written = build_icmp_error(out, error, source, ip, mtu);
  const Bytes message(out, out + written);
  require(written == 28 + std::min<size_t>(ip.total_length, ip.header_length + 8U));
  require(get16(message, 2) == written && get32(message, 12) == source && get32(message, 16) == ip.source);
  require(ip_checksum_right(message));
  require(slow_sum(std::span(message).subspan(20)) == 0xffff);
  require(std::equal(message.begin() + 28, message.end(), memory.get()));
  Ipv4View sent;
  require(parse_ipv4_exact(message, sent) == DropReason::kNone);
  for (size_t kind = 0; kind < kIcmpErrorCount; kind++) {
    require(!may_send_icmp_error(static_cast<IcmpError>(kind), sent));
    if (ip.is_later_fragment()) require(!may_send_icmp_error(static_cast<IcmpError>(kind), ip));
  }

  Bytes header(memory.get(), memory.get() + ip.header_length);
  fill_ip_checksum(header);
  const uint8_t ttl = header[8];
  require(decrement_ttl(header.data()) == (ttl > 1));
  require(ip_checksum_right(header));
  return 0;
}
