// Layout of TCP (RFC 9293) and UDP (RFC 768) headers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tsflannel {

inline constexpr size_t kPorts = 0;  // source and destination port, in both protocols

inline constexpr size_t kTcpMinHeader = 20;
inline constexpr size_t kTcpSequence = 4;
inline constexpr size_t kTcpAck = 8;
inline constexpr size_t kTcpOffset = 12;  // data offset in the upper 4 bits, reserved bits below
inline constexpr size_t kTcpFlags = 13;
inline constexpr size_t kTcpWindow = 14;
inline constexpr size_t kTcpChecksum = 16;
inline constexpr size_t kTcpUrgent = 18;

inline constexpr uint8_t kTcpFin = 0x01;
inline constexpr uint8_t kTcpSyn = 0x02;
inline constexpr uint8_t kTcpRst = 0x04;
inline constexpr uint8_t kTcpPsh = 0x08;
inline constexpr uint8_t kTcpAckFlag = 0x10;
inline constexpr uint8_t kTcpUrg = 0x20;
inline constexpr uint8_t kTcpEce = 0x40;
inline constexpr uint8_t kTcpCwr = 0x80;

inline constexpr size_t kUdpHeader = 8;
inline constexpr size_t kUdpLength = 4;
inline constexpr size_t kUdpChecksum = 6;

}  // namespace tsflannel
