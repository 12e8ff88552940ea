// A test registers itself; a failed check is reported and the test goes on, so that one run shows all of them.
#pragma once

#include <cstdint>
#include <iostream>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace tsflannel::testing {

using TestBody = void (*)();

/// Adds a test to the run; used by TEST.
bool register_test(const char* file, const char* name, TestBody body);

/// Marks the running test as failed.
void report_failure(const char* file, int line, const std::string& what);

/// True while the running test has not failed; loops over many cases stop at the first failure.
bool passing();

/// Seed of all random tests: TSFLANNEL_SEED, or 1. Printed when a test fails.
uint64_t seed();

/// xorshift64*: the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t salt = 0) : state_((seed() + salt) * 0x9e3779b97f4a7c15U + 1) {}
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1dU;
  }
  /// 0 … bound - 1
  size_t below(size_t bound) { return static_cast<size_t>((next() >> 32) % bound); }
  bool one_in(size_t n) { return below(n) == 0; }
  uint8_t byte() { return static_cast<uint8_t>(next() >> 56); }
  uint32_t word() { return static_cast<uint32_t>(next() >> 32); }

 private:
  uint64_t state_;
};

template <typename T>
std::string show(const T& value) {
  std::ostringstream text;
  if constexpr (std::is_enum_v<T>) {
    text << static_cast<long long>(value);
  } else if constexpr (sizeof(T) == 1 && std::is_integral_v<T>) {
    text << +value;
  } else {
    text << value;
  }
  return text.str();
}

template <typename A, typename B>
void check_equal(const char* file, int line, const char* text, const A& actual, const B& expected,
                 std::string_view note = {}) {
  if constexpr (std::is_integral_v<A> && std::is_integral_v<B> && !std::is_same_v<A, bool>) {
    if (std::cmp_equal(actual, expected)) return;
  } else {
    if (actual == expected) return;
  }
  std::string what = std::string(text) + ": got " + show(actual) + ", expected " + show(expected);
  if (!note.empty()) what += " (" + std::string(note) + ")";
  report_failure(file, line, what);
}

}  // namespace tsflannel::testing

// The name is a sentence on behaviour, as in the TypeScript tests.
#define TSFLANNEL_JOIN2(a, b) a##b
#define TSFLANNEL_JOIN(a, b) TSFLANNEL_JOIN2(a, b)
#define TEST(name)                                                                               \
  static void TSFLANNEL_JOIN(test_body_, __LINE__)();                                            \
  [[maybe_unused]] static const bool TSFLANNEL_JOIN(test_registered_, __LINE__) =                \
      ::tsflannel::testing::register_test(__FILE__, name, TSFLANNEL_JOIN(test_body_, __LINE__)); \
  static void TSFLANNEL_JOIN(test_body_, __LINE__)()

#define CHECK(condition) ((condition) ? void() : ::tsflannel::testing::report_failure(__FILE__, __LINE__, #condition))
#define CHECK_NOTE(condition, note) \
  ((condition)                      \
       ? void()                     \
       : ::tsflannel::testing::report_failure(__FILE__, __LINE__, std::string(#condition) + " (" + (note) + ")"))
#define CHECK_EQ(actual, expected) ::tsflannel::testing::check_equal(__FILE__, __LINE__, #actual, (actual), (expected))
#define CHECK_EQ_NOTE(actual, expected, note) \
  ::tsflannel::testing::check_equal(__FILE__, __LINE__, #actual, (actual), (expected), (note))
