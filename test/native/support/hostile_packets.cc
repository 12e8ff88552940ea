#include "hostile_packets.h"

#include <algorithm>
#include <array>

namespace tsflannel::testing {
namespace {

Bytes tcp_options(FuzzInput& input) {
  switch (input.below(4)) {
    case 1:
      return timestamps(input.byte(), 7);
    case 2:
      return {2, 4, 0, 88};  // MSS
    case 3:
      return Bytes(4 * input.below(11), 1);
    default:
      return {};
  }
}

Bytes build(FuzzInput& input, const Ip& ip, uint16_t serial, size_t max_payload) {
  const size_t length = max_payload == 0 ? 0 : input.word() % (max_payload + 1);
  const Bytes payload = pattern(length, uint32_t{serial} * 7919U);
  switch (input.below(8)) {
    case 5:
    case 6: {
      return make_udp(ip, {.checksum = !input.one_in(4)}, payload);
    }
    case 7: {
      constexpr std::array<uint8_t, 4> kProtocols = {1, 4, 41, 132};  // ICMP, IPIP, IPv6, SCTP
      Bytes l4 = {input.byte(), 0, 0, 0, 0, 0, 0, 0};
      l4.insert(l4.end(), payload.begin(), payload.end());
      return make_ip(ip, kProtocols[input.below(kProtocols.size())], l4);
    }
    default: {
      Tcp tcp{.source_port = static_cast<uint16_t>(40000 + input.below(4)), .sequence = uint32_t{serial} << 16};
      tcp.options = tcp_options(input);
      if (input.one_in(8)) tcp.flags = input.byte();
      if (input.one_in(16)) tcp.urgent = input.word();
      if (input.one_in(16)) tcp.reserved = input.byte() & 15;
      return make_tcp(ip, tcp, payload);
    }
  }
}

void damage(FuzzInput& input, Bytes& packet) {
  switch (input.below(8)) {
    case 0:  // truncated
      packet.resize(std::min<size_t>(packet.size(), input.word() % (packet.size() + 1)));
      break;
    case 1:  // bytes behind the end
      packet.resize(packet.size() + 1 + input.byte());
      break;
    case 2:  // lies about its length
      put16(packet, 2, static_cast<uint16_t>(get16(packet, 2) + input.byte() - 128));
      break;
    case 3:  // version and IHL
      packet[0] = input.byte();
      break;
    case 4: {  // two in one
      const Bytes copy = packet;
      packet.insert(packet.end(), copy.begin(), copy.end());
      break;
    }
    case 5: {  // a header field, with checksums made right again where there are any
      packet[input.below(std::min<size_t>(packet.size(), 60))] = input.byte();
      if (packet[0] == 0x45 && packet.size() >= 40) {
        fill_ip_checksum(packet);
        if (packet[9] == 6 || packet[9] == 17) fill_l4_checksum(packet);
      }
      break;
    }
    case 6:  // a wrong checksum somewhere
      packet[input.word() % packet.size()] ^= static_cast<uint8_t>(1 + input.below(255));
      break;
    default:  // the values around the wrap of the IP checksum
      put16(packet, 10, static_cast<uint16_t>(0xfefe + 0x0100 * input.below(2) + input.below(2)));
  }
}

}  // namespace

Bytes hostile_packet(FuzzInput& input, const HostileOrigin& origin, size_t max_payload) {
  Ip ip{.source = origin.source, .destination = origin.destination, .id = origin.serial};
  const uint8_t oddities = input.byte();
  if ((oddities & 0x07) == 0x07) {
    constexpr std::array<uint8_t, 4> kTtls = {0, 1, 2, 255};
    ip.ttl = kTtls[input.below(kTtls.size())];
  }
  if ((oddities & 0x38) == 0x38) ip.fragment = input.word();
  if ((oddities & 0x30) == 0x10) ip.fragment = 0;  // no DF
  if ((oddities & 0xc0) == 0x40) ip.tos = input.byte();
  if ((oddities & 0xe0) == 0xe0) ip.options = Bytes(4 * input.below(11), 1);
  Bytes packet = build(input, ip, origin.serial, max_payload);
  if (input.one_in(4)) damage(input, packet);
  return packet;
}

}  // namespace tsflannel::testing
