#include "environment.h"

#include <cstdlib>
#include <ctime>
#include <iostream>
#include <string>

#include "../support/harness.h"

namespace tsflannel::testing {

uint64_t fake_now_ns = 1'000'000'000;

void report_failure(const char* file, int line, const std::string& what) {
  std::cerr << "broken: " << file << ":" << line << ": " << what << std::endl;
  std::abort();
}

}  // namespace tsflannel::testing

// The linker sends all calls of clock_gettime() here (--wrap).
extern "C" int __real_clock_gettime(clockid_t clock, timespec* now);
extern "C" int __wrap_clock_gettime(clockid_t clock, timespec* now);
extern "C" int __wrap_clock_gettime(clockid_t clock, timespec* now) {
  if (clock != CLOCK_MONOTONIC) return __real_clock_gettime(clock, now);
  constexpr uint64_t kSecond = 1'000'000'000;
  now->tv_sec = static_cast<time_t>(tsflannel::testing::fake_now_ns / kSecond);
  now->tv_nsec = static_cast<long>(tsflannel::testing::fake_now_ns % kSecond);
  return 0;
}
