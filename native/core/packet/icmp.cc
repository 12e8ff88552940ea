#include "icmp.h"

#include <algorithm>
#include <cstring>

namespace tsflannel {
namespace {

constexpr size_t kIcmpHeader = 8;
constexpr size_t kQuotedPayload = 8;  // RFC 792: "internet header + 64 bits of original data datagram"
constexpr uint8_t kFlannelTtl = 8;    // proxy_amd64.c
constexpr uint8_t kDefaultTtl = 64;   // RFC 1700

struct Kind {
  uint8_t type;
  uint8_t code;
  uint8_t ttl;
};

constexpr Kind kKinds[kIcmpErrorCount] = {{3, 0, kFlannelTtl}, {11, 0, kDefaultTtl}, {3, 4, kDefaultTtl}};

// 0/8 "this network", 224/4 multicast, 240/4 reserved with the limited broadcast (RFC 1122 section 3.2.1.3).
bool is_zero_or_group(uint32_t address) {
  return (address >> 24) == 0 || (address >> 28) >= 0xe;
}

// Types that ask or answer a question. Everything else is an error, or unknown and so possibly one.
bool is_icmp_query(uint8_t type) {
  switch (type) {
    case 0:   // echo reply
    case 8:   // echo
    case 13:  // timestamp
    case 14:  // timestamp reply
    case 15:  // information request
    case 16:  // information reply
    case 17:  // address mask request
    case 18:  // address mask reply
    case 42:  // extended echo request, RFC 8335
    case 43:  // extended echo reply
      return true;
    default:
      return false;
  }
}

}  // namespace

bool may_send_icmp_error(IcmpError error, const Ipv4View& offender) {
  if (offender.is_later_fragment()) return false;
  if (is_zero_or_group(offender.destination)) return false;
  if (is_zero_or_group(offender.source) || (offender.source >> 24) == 127) return false;
  if (error == IcmpError::kNetUnreachable && offender.header_length == kIpv4MaxHeader) return false;
  if (offender.protocol != kProtocolIcmp) return true;
  return offender.total_length > offender.header_length && is_icmp_query(offender.data[offender.header_length]);
}

size_t build_icmp_error(std::span<uint8_t, kIcmpMaxError> out, IcmpError error, uint32_t source,
                        const Ipv4View& offender, uint16_t next_hop_mtu) {
  const Kind& kind = kKinds[static_cast<size_t>(error)];
  const size_t quoted = std::min<size_t>(offender.total_length, offender.header_length + kQuotedPayload);
  const size_t total = kIpv4MinHeader + kIcmpHeader + quoted;
  uint8_t* ip = out.data();
  uint8_t* icmp = ip + kIpv4MinHeader;

  std::memset(ip, 0, kIpv4MinHeader + kIcmpHeader);
  ip[0] = 0x45;
  store_be16(ip + kIpv4TotalLength, static_cast<uint16_t>(total));
  ip[kIpv4Ttl] = kind.ttl;
  ip[kIpv4Protocol] = kProtocolIcmp;
  store_be32(ip + kIpv4Source, source);
  store_be32(ip + kIpv4Destination, offender.source);
  store_be16(ip + kIpv4Checksum, finish_checksum(sum_words(ip, kIpv4MinHeader / 4)));

  icmp[0] = kind.type;
  icmp[1] = kind.code;
  if (error == IcmpError::kFragmentationNeeded) store_be16(icmp + 6, next_hop_mtu);  // RFC 1191 section 4
  std::memcpy(icmp + kIcmpHeader, offender.data, quoted);
  store_be16(icmp + 2, finish_checksum(sum_bytes(icmp, kIcmpHeader + quoted)));
  return total;
}

}  // namespace tsflannel
