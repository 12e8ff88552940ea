// Loads and stores of integers in network order at any alignment.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace tsflannel {

/// Reverses the bytes on little-endian hosts: turns a value in memory order into a number and back.
[[nodiscard]] constexpr uint16_t swap_be16(uint16_t value) {
  if constexpr (std::endian::native == std::endian::little) return __builtin_bswap16(value);
  return value;
}

/// As swap_be16(), for 32 bits.
[[nodiscard]] constexpr uint32_t swap_be32(uint32_t value) {
  if constexpr (std::endian::native == std::endian::little) return __builtin_bswap32(value);
  return value;
}

/// As swap_be16(), for 64 bits.
[[nodiscard]] constexpr uint64_t swap_be64(uint64_t value) {
  if constexpr (std::endian::native == std::endian::little) return __builtin_bswap64(value);
  return value;
}

// The functions below touch sizeof(result) bytes at `data`; callers check the length of their span first.

/// Bytes as they lie in memory; for comparisons, where the order of bytes does not matter.
[[nodiscard]] inline uint16_t load_raw16(const uint8_t* data) {
  uint16_t value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

/// As load_raw16(), for 32 bits.
[[nodiscard]] inline uint32_t load_raw32(const uint8_t* data) {
  uint32_t value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

/// As load_raw16(), for 64 bits.
[[nodiscard]] inline uint64_t load_raw64(const uint8_t* data) {
  uint64_t value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

/// Number stored in network order.
[[nodiscard]] inline uint16_t load_be16(const uint8_t* data) {
  return swap_be16(load_raw16(data));
}

/// As load_be16(), for 32 bits.
[[nodiscard]] inline uint32_t load_be32(const uint8_t* data) {
  return swap_be32(load_raw32(data));
}

/// Writes what load_raw16() read.
inline void store_raw16(uint8_t* data, uint16_t value) {
  std::memcpy(data, &value, sizeof value);
}

/// Writes a number in network order.
inline void store_be16(uint8_t* data, uint16_t value) {
  const uint16_t raw = swap_be16(value);
  std::memcpy(data, &raw, sizeof raw);
}

/// As store_be16(), for 32 bits.
inline void store_be32(uint8_t* data, uint32_t value) {
  const uint32_t raw = swap_be32(value);
  std::memcpy(data, &raw, sizeof raw);
}

}  // namespace tsflannel
