#include "packets.h"

#include <algorithm>

namespace tsflannel::testing {

Bytes pattern(size_t length, uint32_t start) {
  Bytes data(length);
  for (size_t i = 0; i < length; i++) {
    const uint32_t mixed = (start + static_cast<uint32_t>(i)) * 2654435761U;
    data[i] = static_cast<uint8_t>(mixed >> 24);
  }
  return data;
}

Bytes timestamps(uint32_t value, uint32_t echo) {
  Bytes options = {1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0};
  put32(options, 4, value);
  put32(options, 8, echo);
  return options;
}

uint16_t get16(const Bytes& data, size_t at) {
  return static_cast<uint16_t>(data.at(at) << 8 | data.at(at + 1));
}
uint32_t get32(const Bytes& data, size_t at) {
  return uint32_t{get16(data, at)} << 16 | get16(data, at + 2);
}
void put16(Bytes& data, size_t at, uint16_t value) {
  data.at(at) = static_cast<uint8_t>(value >> 8);
  data.at(at + 1) = static_cast<uint8_t>(value);
}
void put32(Bytes& data, size_t at, uint32_t value) {
  put16(data, at, static_cast<uint16_t>(value >> 16));
  put16(data, at + 2, static_cast<uint16_t>(value));
}

uint16_t slow_sum(std::span<const uint8_t> data, uint32_t initial) {
  uint32_t sum = initial;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  for (size_t i = 0; i < data.size(); i += 2) {
    const uint32_t low = i + 1 < data.size() ? data[i + 1] : 0;
    sum += uint32_t{data[i]} << 8 | low;
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  }
  return static_cast<uint16_t>(sum);
}

namespace {

size_t ip_header_length(const Bytes& packet) {
  return static_cast<size_t>(packet.at(0) & 15) * 4;
}

Bytes pseudo_header(const Bytes& packet, size_t l4_length) {
  Bytes pseudo(packet.begin() + 12, packet.begin() + 20);
  pseudo.push_back(0);
  pseudo.push_back(packet.at(9));
  pseudo.push_back(static_cast<uint8_t>(l4_length >> 8));
  pseudo.push_back(static_cast<uint8_t>(l4_length));
  return pseudo;
}

size_t l4_checksum_offset(const Bytes& packet) {
  return ip_header_length(packet) + (packet.at(9) == 6 ? 16 : 6);
}

}  // namespace

uint16_t slow_l4_sum(const Bytes& packet) {
  const size_t start = ip_header_length(packet);
  Bytes all = pseudo_header(packet, packet.size() - start);
  all.insert(all.end(), packet.begin() + static_cast<std::ptrdiff_t>(start), packet.end());
  return slow_sum(all);
}

bool ip_checksum_right(const Bytes& packet) {
  return slow_sum(std::span(packet).subspan(0, ip_header_length(packet))) == 0xffff;
}

bool l4_checksum_right(const Bytes& packet) {
  if (packet.at(9) == 17 && get16(packet, l4_checksum_offset(packet)) == 0) return true;
  return slow_l4_sum(packet) == 0xffff;
}

void fill_ip_checksum(Bytes& packet) {
  put16(packet, 10, 0);
  put16(packet, 10, static_cast<uint16_t>(~slow_sum(std::span(packet).subspan(0, ip_header_length(packet)))));
}

void fill_l4_checksum(Bytes& packet) {
  const size_t at = l4_checksum_offset(packet);
  put16(packet, at, 0);
  auto value = static_cast<uint16_t>(~slow_l4_sum(packet));
  if (packet.at(9) == 17 && value == 0) value = 0xffff;
  put16(packet, at, value);
}

Bytes make_ip(const Ip& ip, uint8_t protocol, const Bytes& l4) {
  Bytes packet(20);
  packet[0] = static_cast<uint8_t>(0x40 | (5 + ip.options.size() / 4));
  packet[1] = ip.tos;
  put16(packet, 2, static_cast<uint16_t>(20 + ip.options.size() + l4.size()));
  put16(packet, 4, ip.id);
  put16(packet, 6, ip.fragment);
  packet[8] = ip.ttl;
  packet[9] = protocol;
  put32(packet, 12, ip.source);
  put32(packet, 16, ip.destination);
  packet.insert(packet.end(), ip.options.begin(), ip.options.end());
  packet.insert(packet.end(), l4.begin(), l4.end());
  fill_ip_checksum(packet);
  return packet;
}

Bytes make_tcp(const Ip& ip, const Tcp& tcp, const Bytes& payload) {
  Bytes l4(20);
  put16(l4, 0, tcp.source_port);
  put16(l4, 2, tcp.destination_port);
  put32(l4, 4, tcp.sequence);
  put32(l4, 8, tcp.ack);
  l4[12] = static_cast<uint8_t>((5 + tcp.options.size() / 4) << 4 | tcp.reserved);
  l4[13] = tcp.flags;
  put16(l4, 14, tcp.window);
  put16(l4, 18, tcp.urgent);
  l4.insert(l4.end(), tcp.options.begin(), tcp.options.end());
  l4.insert(l4.end(), payload.begin(), payload.end());
  Bytes packet = make_ip(ip, 6, l4);
  fill_l4_checksum(packet);
  return packet;
}

Bytes make_udp(const Ip& ip, const Udp& udp, const Bytes& payload) {
  Bytes l4(8);
  put16(l4, 0, udp.source_port);
  put16(l4, 2, udp.destination_port);
  put16(l4, 4, static_cast<uint16_t>(8 + payload.size()));
  l4.insert(l4.end(), payload.begin(), payload.end());
  Bytes packet = make_ip(ip, 17, l4);
  if (udp.checksum) fill_l4_checksum(packet);
  return packet;
}

std::optional<std::vector<Bytes>> slow_segment(const VnetHeader& vnet, const Bytes& packet) {
  const bool tcp = (vnet.gso_type & 0x7f) == 1;
  const bool udp = vnet.gso_type == 5;
  if (!tcp && !udp) return std::nullopt;
  if (packet.size() < 20 || packet[0] >> 4 != 4) return std::nullopt;
  const size_t ip_length = ip_header_length(packet);
  if (ip_length < 20 || packet.size() < ip_length || get16(packet, 2) != packet.size()) return std::nullopt;
  if ((get16(packet, 6) & 0x3fff) != 0 || vnet.gso_size == 0) return std::nullopt;
  if (packet[9] != (tcp ? 6 : 17)) return std::nullopt;
  if (packet.size() < ip_length + (tcp ? 20U : 8U)) return std::nullopt;
  const size_t l4_header = tcp ? static_cast<size_t>(packet[ip_length + 12] >> 4) * 4 : 8;
  if ((tcp && l4_header < 20) || packet.size() < ip_length + l4_header) return std::nullopt;

  const size_t headers = ip_length + l4_header;
  const bool no_checksum = udp && (vnet.flags & 1) == 0 && get16(packet, ip_length + 6) == 0;
  std::vector<Bytes> segments;
  size_t at = headers;
  do {
    const size_t end = std::min(packet.size(), at + vnet.gso_size);
    Bytes segment(packet.begin(), packet.begin() + static_cast<std::ptrdiff_t>(headers));
    segment.insert(segment.end(), packet.begin() + static_cast<std::ptrdiff_t>(at),
                   packet.begin() + static_cast<std::ptrdiff_t>(end));
    put16(segment, 2, static_cast<uint16_t>(segment.size()));
    put16(segment, 4, static_cast<uint16_t>(get16(packet, 4) + segments.size()));
    if (tcp) {
      put32(segment, ip_length + 4, get32(packet, ip_length + 4) + static_cast<uint32_t>(at - headers));
      uint8_t& flags = segment[ip_length + 13];
      if (end != packet.size()) flags = static_cast<uint8_t>(flags & ~0x09);
      if (at != headers) flags = static_cast<uint8_t>(flags & ~0x80);
    } else {
      put16(segment, ip_length + 4, static_cast<uint16_t>(segment.size() - ip_length));
    }
    fill_ip_checksum(segment);
    if (no_checksum) {
      put16(segment, ip_length + 6, 0);
    } else {
      fill_l4_checksum(segment);
    }
    segments.push_back(std::move(segment));
    at = end;
  } while (at < packet.size());
  return segments;
}

Bytes gather(std::span<const iovec> iovecs, size_t skip) {
  Bytes all;
  for (size_t i = skip; i < iovecs.size(); i++) {
    const auto* data = static_cast<const uint8_t*>(iovecs[i].iov_base);
    all.insert(all.end(), data, data + iovecs[i].iov_len);
  }
  return all;
}

std::string hex(const Bytes& data, size_t limit) {
  constexpr const char* digits = "0123456789abcdef";
  std::string text = std::to_string(data.size()) + " bytes:";
  for (size_t i = 0; i < data.size() && i < limit; i++) {
    if (i % 4 == 0) text += ' ';
    text += digits[data[i] >> 4];
    text += digits[data[i] & 15];
  }
  return text;
}

}  // namespace tsflannel::testing
