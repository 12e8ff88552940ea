#include <cstdlib>

#include "harness.h"

namespace tsflannel::testing {

uint64_t seed() {
  static const uint64_t value = [] {
    const char* text = std::getenv("TSFLANNEL_SEED");
    return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
  }();
  return value;
}

}  // namespace tsflannel::testing
