#include "flow_steering.h"

#include <linux/bpf.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include <array>
#include <cerrno>

#include "../base/bpf.h"
#include "../base/unique_fd.h"
#include "../packet/ipv4.h"

#ifndef TUNSETSTEERINGEBPF
#define TUNSETSTEERINGEBPF _IOR('T', 224, int)  // include/uapi/linux/if_tun.h, Linux 4.16
#endif

namespace tsflannel {
namespace {

// BPF_ABS loads into register 0 and leaves 6 and above as they are.
constexpr uint8_t kLoaded = BPF_REG_0;
constexpr uint8_t kHash = BPF_REG_7;
constexpr uint8_t kLane = BPF_REG_8;

// The fractional part of the golden ratio: spreads consecutive addresses and ports over the upper bits.
constexpr int32_t kMultiplier = static_cast<int32_t>(0x9e3779b1);

constexpr bpf_insn copy(uint8_t to, uint8_t from) {
  return instruction(BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0);
}

/// `to` = `to` `operation` `value`, in 32 bits.
constexpr bpf_insn compute(int operation, uint8_t to, int32_t value) {
  return instruction(BPF_ALU | operation | BPF_K, to, 0, value);
}

/// `to` = `to` `operation` `from`, in 32 bits.
constexpr bpf_insn combine(int operation, uint8_t to, uint8_t from) {
  return instruction(BPF_ALU | operation | BPF_X, to, from, 0);
}

/// BPF_W: four bytes of the packet at `offset`, BPF_B: one; where there are none, the program ends with 0, the first
/// queue.
constexpr bpf_insn load(int size, int32_t offset) {
  return instruction(BPF_LD | BPF_ABS | size, 0, 0, offset);
}

/// Leaves out the next `count` instructions unless `value` was loaded.
constexpr bpf_insn skip_unless(int32_t value, int16_t count) {
  bpf_insn jump = instruction(BPF_JMP | BPF_JNE | BPF_K, kLoaded, 0, value);
  jump.off = count;
  return jump;
}

// What the packet starts with is its IPv4 header. Only TCP is spread by port: a large datagram is sent in fragments, of
// which all but the first have no ports, and one flow's fragments and whole datagrams must not overtake each other.
// NICs spread UDP by address alone for the same reason. With IP options, the first of them stand in for TCP's ports;
// that is the same for every packet of a flow, too.
std::array<bpf_insn, 20> program_for(unsigned workers) {
  return {{
      copy(BPF_REG_6, BPF_REG_1),  // BPF_ABS reads from the packet that register 6 points to
      load(BPF_W, 12),             // source
      copy(kHash, kLoaded),
      compute(BPF_MUL, kHash, kMultiplier),
      load(BPF_W, 16),  // destination
      combine(BPF_ADD, kHash, kLoaded),
      compute(BPF_MUL, kHash, kMultiplier),
      compute(BPF_MOV, kLane, 0),
      load(BPF_B, 9),  // protocol
      skip_unless(kProtocolTcp, 4),
      load(BPF_W, 20),  // ports
      combine(BPF_ADD, kHash, kLoaded),
      compute(BPF_MUL, kHash, kMultiplier),
      compute(BPF_MOV, kLane, 1),
      // The lowest bits hardly depend on the highest inputs, so only the upper half counts.
      compute(BPF_RSH, kHash, 16),
      compute(BPF_MOD, kHash, static_cast<int32_t>(workers)),
      compute(BPF_MUL, kHash, kLanesPerWorker),
      combine(BPF_ADD, kHash, kLane),
      copy(BPF_REG_0, kHash),
      instruction(BPF_JMP | BPF_EXIT, 0, 0, 0),
  }};
}

}  // namespace

Result<void> steer_flows(Kernel& kernel, int queue, unsigned workers) {
  const auto instructions = program_for(workers);
  const int loaded = load_socket_filter(kernel, instructions);
  if (loaded < 0) return Error{"BPF_PROG_LOAD", -loaded, ""};
  UniqueFd program(loaded);
  int number = program.get();
  // The device keeps the program; the descriptor is of no more use.
  const int failed = kernel.ioctl(queue, TUNSETSTEERINGEBPF, &number);
  if (failed < 0) return Error{"TUNSETSTEERINGEBPF", -failed, ""};
  return {};
}

}  // namespace tsflannel
