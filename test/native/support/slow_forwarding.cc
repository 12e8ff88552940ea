#include "slow_forwarding.h"

#include <algorithm>
#include <cstring>

namespace tsflannel::testing {
namespace {

constexpr uint64_t kMinuteNs = 60'000'000'000;

uint32_t address_at(const Bytes& packet, size_t at) {
  return get32(packet, at);
}

size_t header_length(const Bytes& packet) {
  return static_cast<size_t>(packet[0] & 15) * 4;
}

bool is_dont_fragment(const Bytes& packet) {
  return (packet[6] & 0x40) != 0;
}

/// RFC 791: why this is no IPv4 packet, or kNone. More bytes than it says it has are left to the caller.
DropReason parse(const Bytes& packet) {
  if (packet.size() < 20) return DropReason::kShort;
  if (packet[0] >> 4 != 4) return DropReason::kNotIpv4;
  const size_t total = get16(packet, 2);
  if (header_length(packet) < 20 || total < header_length(packet) || total > packet.size()) {
    return DropReason::kBadHeader;
  }
  return DropReason::kNone;
}

bool covers(uint32_t prefix, uint8_t length, uint32_t address) {
  return length == 0 || (address ^ prefix) >> (32 - length) == 0;
}

const SlowRoute* route_to(const SlowState& state, uint32_t address) {
  const SlowRoute* best = nullptr;
  for (const SlowRoute& each : state.routes) {
    if (covers(each.prefix, each.length, address) && (best == nullptr || each.length > best->length)) best = &each;
  }
  return best;
}

bool is_own(const SlowState& state, uint32_t address) {
  return std::any_of(state.own.begin(), state.own.end(),
                     [address](const SlowPrefix& each) { return covers(each.prefix, each.length, address); });
}

bool is_peer(const SlowState& state, uint32_t outer) {
  return std::any_of(state.routes.begin(), state.routes.end(),
                     [outer](const SlowRoute& each) { return each.outer == outer; });
}

/// Finishes the checksum that the vnet header says is missing; false if it points to nowhere.
bool complete_checksum(const VnetHeader& vnet, Bytes& packet) {
  if ((vnet.flags & 1) == 0) return true;
  const size_t field = size_t{vnet.csum_start} + vnet.csum_offset;
  if (vnet.csum_start < header_length(packet) || field + 2 > packet.size()) return false;
  auto value = static_cast<uint16_t>(~slow_sum(std::span(packet).subspan(vnet.csum_start)));
  if (packet[9] == 17 && vnet.csum_offset == 6 && value == 0) value = 0xffff;
  put16(packet, field, value);
  return true;
}

/// How many packets a super-packet stands for; one that cannot be cut counts as one.
size_t packets_in(const VnetHeader& vnet, const Bytes& packet) {
  const std::optional<std::vector<Bytes>> segments = slow_segment(vnet, packet);
  return segments ? segments->size() : 1;
}

bool is_single_host(uint32_t address) {
  const uint32_t first = address >> 24;
  return first != 0 && first < 224;
}

}  // namespace

Bytes slow_hop(Bytes packet) {
  const uint16_t before = get16(packet, 8);
  packet[8]--;
  uint32_t sum = static_cast<uint16_t>(~get16(packet, 10));
  sum += static_cast<uint16_t>(~before);
  sum += get16(packet, 8);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  put16(packet, 10, static_cast<uint16_t>(~sum));
  return packet;
}

std::optional<Bytes> slow_icmp(IcmpError error, const SlowState& state, const Bytes& offender, uint16_t mtu) {
  const uint32_t source = address_at(offender, 12);
  if ((get16(offender, 6) & 0x1fff) != 0) return std::nullopt;
  if (!is_single_host(source) || source >> 24 == 127 || !is_single_host(address_at(offender, 16))) return std::nullopt;
  const size_t header = header_length(offender);
  const size_t total = get16(offender, 2);
  if (error == IcmpError::kNetUnreachable && header == 60) return std::nullopt;
  if (offender[9] == 1) {
    const Bytes queries = {0, 8, 13, 14, 15, 16, 17, 18, 42, 43};
    if (total == header) return std::nullopt;
    if (std::find(queries.begin(), queries.end(), offender[header]) == queries.end()) return std::nullopt;
  }
  const auto quoted_end = offender.begin() + static_cast<std::ptrdiff_t>(std::min(total, header + 8));
  Bytes icmp(8);
  icmp[0] = error == IcmpError::kTimeExceeded ? 11 : 3;
  icmp[1] = error == IcmpError::kFragmentationNeeded ? 4 : 0;
  if (error == IcmpError::kFragmentationNeeded) put16(icmp, 6, mtu);
  icmp.insert(icmp.end(), offender.begin(), quoted_end);
  put16(icmp, 2, static_cast<uint16_t>(~slow_sum(icmp)));
  const uint8_t ttl = error == IcmpError::kNetUnreachable ? 8 : 64;
  return make_ip(
      {.source = state.icmp_source, .destination = source, .ttl = ttl, .id = 0, .fragment = 0, .options = {}}, 1, icmp);
}

SlowTransmit slow_transmit(const SlowState& state, const Bytes& frame) {
  SlowTransmit result;
  const auto drop = [&result](DropReason reason, size_t packets = 1) {
    result.reason = reason;
    result.dropped = packets;
    return result;
  };
  if (frame.size() < kVnetHeaderSize) return drop(DropReason::kShort);
  VnetHeader vnet;
  std::memcpy(&vnet, frame.data(), kVnetHeaderSize);
  const Bytes packet(frame.begin() + kVnetHeaderSize, frame.end());
  if (const DropReason reason = parse(packet); reason != DropReason::kNone) return drop(reason);

  const SlowRoute* route = route_to(state, address_at(packet, 16));
  if (route == nullptr) {
    result.answer = slow_icmp(IcmpError::kNetUnreachable, state, packet);
    return drop(DropReason::kNoRoute, packets_in(vnet, packet));
  }
  if (packet[8] <= 1) {
    result.answer = slow_icmp(IcmpError::kTimeExceeded, state, packet);
    return drop(DropReason::kTtlExpired, packets_in(vnet, packet));
  }
  const bool is_super = vnet.gso_type != 0;
  const size_t total = get16(packet, 2);
  if (!is_super && total > state.mtu) {
    if (is_dont_fragment(packet)) {
      result.answer = slow_icmp(IcmpError::kFragmentationNeeded, state, packet, state.mtu);
    }
    return drop(DropReason::kOversize);
  }
  Bytes forwarded = slow_hop(packet);
  if (!is_super) {
    forwarded.resize(total);
    if (!complete_checksum(vnet, forwarded)) return drop(DropReason::kBadHeader);
    result.packets = {forwarded};
  } else {
    const std::optional<std::vector<Bytes>> segments = slow_segment(vnet, forwarded);
    if (!segments) return drop(DropReason::kBadHeader);
    if (segments->front().size() > state.mtu) {
      // One that is not cut after all is completed in place, and quoted so.
      const Bytes& quoted = segments->size() == 1 ? segments->front() : forwarded;
      if (is_dont_fragment(packet)) {
        result.answer = slow_icmp(IcmpError::kFragmentationNeeded, state, quoted, state.mtu);
      }
      return drop(DropReason::kOversize, segments->size());
    }
    result.packets = *segments;
  }
  result.outer = route->outer;
  return result;
}

DropReason slow_receive(const SlowState& state, uint32_t outer, const Bytes& datagram) {
  if (datagram.empty()) return DropReason::kShort;
  if (state.verify != VerifySource::kOff && !is_peer(state, outer)) return DropReason::kSourceUnknown;
  if (datagram.size() < 20) return DropReason::kShort;
  if (datagram[0] >> 4 != 4) return DropReason::kNotIpv4;
  if (get16(datagram, 2) != datagram.size()) return DropReason::kLengthMismatch;
  if (const DropReason reason = parse(datagram); reason != DropReason::kNone) return reason;
  if (state.verify != VerifySource::kOff && is_own(state, address_at(datagram, 12))) return DropReason::kSourceSpoofed;
  if (state.verify == VerifySource::kStrict) {
    const SlowRoute* route = route_to(state, address_at(datagram, 12));
    if (route == nullptr || route->outer != outer) return DropReason::kSourceSpoofed;
  }
  if (datagram[8] <= 1) return DropReason::kTtlExpired;
  return DropReason::kNone;
}

void SlowOffload::refused(uint64_t now_ns) {
  if (!is_on_) return;
  const bool has_worked = now_ns - tried_at_ns_ >= minutes_ * kMinuteNs;
  minutes_ = minutes_ == 0 || has_worked ? 2 : std::min<uint64_t>(minutes_ * 2, 64);
  refused_at_ns_ = now_ns;
  downgrades_++;
  is_on_ = false;
}

void SlowOffload::time_passed(uint64_t now_ns) {
  // One that the kernel never had is not tried.
  if (is_on_ || downgrades_ == 0 || now_ns - refused_at_ns_ < minutes_ * kMinuteNs) return;
  tried_at_ns_ = now_ns;
  trials_++;
  is_on_ = true;
}

}  // namespace tsflannel::testing
