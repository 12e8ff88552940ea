// A test registers itself; a failed check is reported and the test goes on, so that one run shows all of them.
#pragma once

#include <cstdint>
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

/// A value as a message shows it.
std::string show(long long value);
std::string show(unsigned long long value);
std::string show(std::string_view value);

template <typename T>
std::string show(const T& value) {
  if constexpr (std::is_convertible_v<T, std::string_view>) {
    return show(std::string_view(value));
  } else if constexpr (std::is_integral_v<T> && std::is_unsigned_v<T>) {
    return show(static_cast<unsigned long long>(value));
  } else {
    return show(static_cast<long long>(value));
  }
}

/// Reports that two values differ. Apart from check_equal(), of which there is one for each pair of types.
void report_difference(const char* file, int line, const char* text, const std::string& actual,
                       const std::string& expected, std::string_view note);

template <typename A, typename B>
void check_equal(const char* file, int line, const char* text, const A& actual, const B& expected,
                 std::string_view note = {}) {
  if constexpr (std::is_integral_v<A> && std::is_integral_v<B> && !std::is_same_v<A, bool>) {
    if (std::cmp_equal(actual, expected)) return;
  } else {
    if (actual == expected) return;
  }
  report_difference(file, line, text, show(actual), show(expected), note);
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
