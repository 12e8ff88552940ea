// Loading programs into the kernel.
#pragma once

#include <linux/bpf.h>

#include <cerrno>

#include "kernel.h"

namespace tsflannel {

/// BPF_PROG_LOAD: a descriptor, or the negative errno.
///
/// The verifier gives up with EAGAIN when a signal comes meanwhile (do_check() in kernel/bpf/verifier.c), which happens to
/// a process with many threads; after as many tries as libbpf has it says so.
[[nodiscard]] inline int load_program(Kernel& kernel, bpf_attr& attributes) {
  constexpr int kTries = 5;
  int loaded = -EAGAIN;
  for (int i = 0; i < kTries && loaded == -EAGAIN; i++) {
    loaded = kernel.bpf(BPF_PROG_LOAD, &attributes, sizeof attributes);
  }
  return loaded;
}

}  // namespace tsflannel
