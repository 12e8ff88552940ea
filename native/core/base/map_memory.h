// Values of a BPF map in memory that this process shares with programs in the kernel.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <span>
#include <utility>

#include "result.h"
#include "unique_fd.h"

namespace tsflannel {

/// The mapping, which lives on its own: neither the map nor its descriptor goes with it.
///
/// Threads: values() on any; what is in it is read and written beside programs, as atomic as the caller makes it.
template <typename T>
class MapMemory {
 public:
  /// @param map an array with BPF_F_MMAPABLE (Linux 5.5), whose values lie one behind the other
  /// @param count of T in all of them
  [[nodiscard]] static Result<MapMemory> of(const UniqueFd& map, size_t count) {
    void* values = ::mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED, map.get(), 0);
    if (values == MAP_FAILED) return Error{"mmap", errno, "BPF map"};
    return MapMemory(static_cast<T*>(values), count);
  }

  MapMemory() = default;
  MapMemory(MapMemory&& other) noexcept : values_(std::exchange(other.values_, {})) {}
  MapMemory(const MapMemory&) = delete;
  MapMemory& operator=(MapMemory&& other) noexcept {
    std::swap(values_, other.values_);
    return *this;
  }
  MapMemory& operator=(const MapMemory&) = delete;
  ~MapMemory() {
    if (!values_.empty()) ::munmap(values_.data(), values_.size_bytes());
  }

  [[nodiscard]] std::span<T> values() const { return values_; }

 private:
  MapMemory(T* values, size_t count) : values_(values, count) {}

  std::span<T> values_;
};

}  // namespace tsflannel
