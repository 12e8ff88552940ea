// Owner of a file descriptor.
#pragma once

#include <unistd.h>

#include <utility>

namespace tsflannel {

/// Closes its descriptor when it goes; movable, not copyable. Not synchronized: one thread at a time.
class UniqueFd {
 public:
  UniqueFd() = default;
  /// Takes over `fd`; negative means none.
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool valid() const { return fd_ >= 0; }
  explicit operator bool() const { return valid(); }

  /// Gives the descriptor away; the caller closes it.
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }

  /// Closes the descriptor and takes over another one. Linux frees the number even when close() reports an error
  /// (close(2), "Dealing with error returns"), so there is nothing to retry.
  void reset(int fd = -1) {
    const int old = std::exchange(fd_, fd);
    if (old >= 0) ::close(old);
  }

 private:
  int fd_ = -1;
};

}  // namespace tsflannel
