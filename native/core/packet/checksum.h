// The Internet checksum (RFC 1071).
//
// A *sum* is a 64-bit number that is congruent, modulo 2^16 - 1, to the sum of 16-bit words in network order. Sums are
// added with add_sums(), reduced to 16 bits with fold_sum(), and turned into the value of a checksum field with
// finish_checksum(). Folding keeps the one distinction that matters: a sum is 0 only if every word was 0.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../base/bytes.h"

namespace tsflannel {

/// Adds two sums with end-around carry.
[[nodiscard]] constexpr uint64_t add_sums(uint64_t a, uint64_t b) {
  const uint64_t total = a + b;
  return total + (total < b ? 1 : 0);
}

/// Reduces a sum to 16 bits.
[[nodiscard]] constexpr uint16_t fold_sum(uint64_t sum) {
  sum = (sum >> 32) + (sum & 0xffffffff);
  sum = (sum >> 32) + (sum & 0xffffffff);
  sum = (sum >> 16) + (sum & 0xffff);
  sum = (sum >> 16) + (sum & 0xffff);
  return static_cast<uint16_t>(sum);
}

/// Value of the checksum field over words that add up to `sum` (RFC 1071 section 1), as a number.
[[nodiscard]] constexpr uint16_t finish_checksum(uint64_t sum) {
  return static_cast<uint16_t>(~fold_sum(sum));
}

/// As finish_checksum(), but never 0, which in UDP means "no checksum" (RFC 768).
[[nodiscard]] constexpr uint16_t finish_udp_checksum(uint64_t sum) {
  const uint16_t value = finish_checksum(sum);
  return value == 0 ? 0xffff : value;
}

/// Sum of `length` bytes, plus `initial`. An odd last byte counts as the high half of a word; so where sums of pieces
/// are chained, every piece but the last must have an even length. Uses AVX2 where the CPU has it.
[[nodiscard]] uint64_t sum_bytes(const uint8_t* data, size_t length, uint64_t initial = 0);

/// Same result as sum_bytes() without vector instructions; for CPUs that have none and for comparison in tests.
[[nodiscard]] uint64_t sum_bytes_portable(const uint8_t* data, size_t length, uint64_t initial = 0);

/// Sum of `words` 32-bit words, inline: for headers, where a call costs more than the work.
[[nodiscard]] inline uint64_t sum_words(const uint8_t* data, size_t words) {
  uint64_t sum = 0;
  for (size_t i = 0; i < words; i++) sum += load_raw32(data + i * 4);
  return swap_be64(sum);
}

/// Name of the code that sum_bytes() runs on this CPU: "avx2" or "portable".
[[nodiscard]] const char* sum_bytes_implementation();

/// Sum of the IPv4 pseudo header (RFC 793 section 3.1, RFC 768); addresses as numbers.
[[nodiscard]] constexpr uint64_t pseudo_header_sum(uint32_t source, uint32_t destination, uint8_t protocol,
                                                   uint16_t l4_length) {
  return uint64_t{source} + destination + protocol + l4_length;
}

/// Checksum field after one 16-bit word of the covered data changed (RFC 1624, equation 3).
[[nodiscard]] constexpr uint16_t update_checksum(uint16_t checksum, uint16_t old_word, uint16_t new_word) {
  const uint64_t sum =
      uint64_t{static_cast<uint16_t>(~checksum)} + uint64_t{static_cast<uint16_t>(~old_word)} + new_word;
  return finish_checksum(sum);
}

}  // namespace tsflannel
