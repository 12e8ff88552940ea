// Writing programs for the kernel, and loading them.
#pragma once

#include <linux/bpf.h>

#include <cerrno>
#include <cstdint>
#include <span>

#include "kernel.h"

namespace tsflannel {

[[nodiscard]] constexpr bpf_insn instruction(int code, uint8_t to, uint8_t from, int32_t value) {
  return {static_cast<uint8_t>(code), static_cast<uint8_t>(to & 0xf), static_cast<uint8_t>(from & 0xf), 0, value};
}

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

/// Loads a program for a socket or a TUN: a descriptor, or the negative errno. It must call no helper that is for
/// programs under the GPL only.
[[nodiscard]] inline int load_socket_filter(Kernel& kernel, std::span<const bpf_insn> instructions) {
  bpf_attr attributes{};
  attributes.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
  attributes.insns = reinterpret_cast<uint64_t>(instructions.data());
  attributes.insn_cnt = static_cast<uint32_t>(instructions.size());
  attributes.license = reinterpret_cast<uint64_t>("Apache-2.0");
  return load_program(kernel, attributes);
}

}  // namespace tsflannel
