// The value of a fallible function, or why there is none. Control path only: an Error may allocate.
#pragma once

#include <cstdlib>
#include <string>
#include <utility>
#include <variant>

namespace tsflannel {

/// Why an operation failed; the addon turns it into one JavaScript error.
struct Error {
  /// What was attempted, such as "ioctl(TUNSETOFFLOAD)"; a string literal.
  const char* operation = "";
  /// errno of the failed call, or the one that fits best where no system call was made; never 0.
  int code = 0;
  /// The object and the values concerned, such as "flannel0, flags 0x5001"; may be empty.
  std::string detail;
};

/// A `T` or an Error. value() and error() abort when asked for the one that is not there: that is a bug, never bad
/// input.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  [[nodiscard]] T& value() & {
    if (!ok()) std::abort();
    return *std::get_if<0>(&state_);
  }
  [[nodiscard]] const T& value() const& {
    if (!ok()) std::abort();
    return *std::get_if<0>(&state_);
  }
  [[nodiscard]] T&& value() && {
    if (!ok()) std::abort();
    return std::move(*std::get_if<0>(&state_));
  }
  [[nodiscard]] const Error& error() const {
    if (ok()) std::abort();
    return *std::get_if<1>(&state_);
  }

 private:
  std::variant<T, Error> state_;
};

/// Success without a value, or an Error.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)), ok_(false) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool ok() const { return ok_; }
  explicit operator bool() const { return ok_; }
  [[nodiscard]] const Error& error() const {
    if (ok_) std::abort();
    return error_;
  }

 private:
  Error error_;
  bool ok_ = true;
};

}  // namespace tsflannel
