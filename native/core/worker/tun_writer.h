// Writing to the TUN what came from the peers.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "../offload/coalescer.h"
#include "worker_context.h"

namespace tsflannel {

/// One worker's way into the TUN; its thread only.
class TunWriter {
 public:
  explicit TunWriter(WorkerContext& context) : context_(context) {}

  /// Writes all items of a finished batch and empties it.
  ///
  /// If the kernel refuses a merged packet (EINVAL), merging of that protocol is switched off and the packets it was
  /// made of are written one by one: none is lost, none is written twice.
  void write(Coalescer& coalescer);

 private:
  /// 0 or -errno; EAGAIN after waiting as long as packets of the other direction can stand.
  int write_parts(std::span<const iovec> parts);
  void write_originals(Coalescer& coalescer, size_t item);
  void count(int result, size_t packets, size_t bytes);

  WorkerContext& context_;
};

}  // namespace tsflannel
