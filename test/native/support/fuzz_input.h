// The bytes of a fuzzer as a source of decisions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>

#include "packets.h"

namespace tsflannel::testing {

/// Hands out the input byte by byte, and zeros once it is used up: so zero should be the harmless choice.
class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size) : rest_(data, size) {}

  [[nodiscard]] bool empty() const { return rest_.empty(); }
  uint8_t byte() {
    if (rest_.empty()) return 0;
    const uint8_t value = rest_.front();
    rest_ = rest_.subspan(1);
    return value;
  }
  uint16_t word() {
    const uint8_t high = byte();
    return static_cast<uint16_t>(high << 8 | byte());
  }
  /// 0 … bound - 1, for a bound of at most 256
  size_t below(size_t bound) { return byte() % bound; }
  /// True for one byte of `n`, never for zero.
  bool one_in(size_t n) { return below(n) == n - 1; }
  Bytes bytes(size_t count) {
    Bytes all;
    while (count-- > 0 && !rest_.empty()) all.push_back(byte());
    return all;
  }

 private:
  std::span<const uint8_t> rest_;
};

/// Ends the program with the reason if an invariant does not hold.
inline void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "broken: %s\n", what.c_str());
  std::abort();
}

}  // namespace tsflannel::testing
