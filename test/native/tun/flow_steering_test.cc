#include "../../../native/core/tun/flow_steering.h"

#include <linux/bpf.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "../../../native/core/packet/ipv4.h"
#include "../worker/fake_kernel.h"

namespace tsflannel::testing {
namespace {

/// What the kernel's interpreter does with the few instructions that a steering program is made of
/// (Documentation/bpf/standardization/instruction-set.rst), one packet at a time.
class Interpreter {
 public:
  explicit Interpreter(std::vector<bpf_insn> program) : program_(std::move(program)) {}

  /// The queue for a packet.
  uint64_t run(const Bytes& packet) const {
    std::array<uint64_t, MAX_BPF_REG> registers{};
    for (size_t at = 0; at < program_.size(); at++) {
      const bpf_insn& each = program_[at];
      const uint64_t operand =
          BPF_SRC(each.code) == BPF_X ? registers.at(each.src_reg) : static_cast<uint64_t>(int64_t{each.imm});
      switch (BPF_CLASS(each.code)) {
        case BPF_ALU64:
          registers.at(each.dst_reg) = compute(each.code, registers.at(each.dst_reg), operand);
          break;
        case BPF_ALU:
          registers.at(each.dst_reg) = static_cast<uint32_t>(
              compute(each.code, static_cast<uint32_t>(registers.at(each.dst_reg)), static_cast<uint32_t>(operand)));
          break;
        case BPF_LD: {
          CHECK_EQ(BPF_MODE(each.code), BPF_ABS);
          const size_t length = BPF_SIZE(each.code) == BPF_W ? 4 : 1;
          const auto offset = static_cast<size_t>(each.imm);
          if (offset + length > packet.size()) return 0;
          registers[0] = length == 4 ? get32(packet, offset) : packet[offset];
          break;
        }
        default:
          CHECK_EQ(BPF_CLASS(each.code), BPF_JMP);
          if (BPF_OP(each.code) == BPF_EXIT) return registers[0];
          CHECK_EQ(BPF_OP(each.code), BPF_JNE);
          if (registers.at(each.dst_reg) != operand) at += static_cast<size_t>(each.off);
      }
    }
    CHECK_NOTE(false, "the program has no end");
    return 0;
  }

 private:
  static uint64_t compute(uint8_t code, uint64_t value, uint64_t operand) {
    switch (BPF_OP(code)) {
      case BPF_MOV:
        return operand;
      case BPF_ADD:
        return value + operand;
      case BPF_MUL:
        return value * operand;
      case BPF_RSH:
        return value >> operand;
      default:
        CHECK_EQ(BPF_OP(code), BPF_MOD);
        return value % operand;
    }
  }

  std::vector<bpf_insn> program_;
};

/// The program that the kernel is given for so many workers.
Interpreter program_for(unsigned workers) {
  FakeKernel kernel;
  kernel.next_fd = 1 << 20;
  std::vector<bpf_insn> program;
  kernel.on_bpf = [&program](const void* attributes) {
    const auto* load = static_cast<const bpf_attr*>(attributes);
    const auto* first = reinterpret_cast<const bpf_insn*>(load->insns);
    program.assign(first, first + load->insn_cnt);
  };
  CHECK(steer_flows(kernel, kTunFd, workers).ok());
  return Interpreter(program);
}

uint64_t worker_of(uint64_t queue) {
  return queue / kLanesPerWorker;
}

TEST("TCP takes the second lane of its worker, and everything else the first") {
  const Interpreter program = program_for(3);
  for (unsigned protocol = 0; protocol < 256; protocol++) {
    const Bytes packet = make_ip({}, static_cast<uint8_t>(protocol), pattern(64));
    CHECK_EQ_NOTE(program.run(packet) % kLanesPerWorker, protocol == kProtocolTcp ? 1 : 0, show(protocol));
  }
}

TEST("TCP connections between two hosts are spread over all workers, none of which has twice its share") {
  constexpr unsigned kConnections = 1000;
  for (unsigned workers = 1; workers <= 16; workers++) {
    const Interpreter program = program_for(workers);
    std::vector<unsigned> connections(workers);
    for (unsigned i = 0; i < kConnections; i++) {
      const Tcp tcp{.source_port = static_cast<uint16_t>(40000 + i)};
      connections.at(worker_of(program.run(make_tcp({}, tcp, {}))))++;
    }
    const auto [least, most] = std::minmax_element(connections.begin(), connections.end());
    CHECK_NOTE(*least > kConnections / workers / 2, show(workers) + " workers: " + show(*least));
    CHECK_NOTE(*most < kConnections / workers * 2, show(workers) + " workers: " + show(*most));
  }
}

TEST("both ports of a TCP connection count") {
  const Interpreter program = program_for(4);
  const auto is_spread = [&program](auto change) {
    Tcp tcp;
    const uint64_t first = program.run(make_tcp({}, tcp, {}));
    for (int i = 0; i < 20; i++) {
      change(tcp);
      if (program.run(make_tcp({}, tcp, {})) != first) return true;
    }
    return false;
  };
  CHECK(is_spread([](Tcp& tcp) { tcp.source_port++; }));
  CHECK(is_spread([](Tcp& tcp) { tcp.destination_port++; }));
}

TEST("every packet of a TCP connection takes the same queue") {
  const Interpreter program = program_for(5);
  const uint64_t queue = program.run(make_tcp({}, {}, {}));
  Random random;
  for (int i = 0; i < 100; i++) {
    const Ip ip = {.tos = random.byte(), .ttl = random.byte(), .id = static_cast<uint16_t>(random.word())};
    const Tcp tcp = {.sequence = random.word(), .ack = random.word(), .flags = random.byte()};
    CHECK_EQ(program.run(make_tcp(ip, tcp, pattern(random.below(1400)))), queue);
  }
}

TEST("what is not TCP stays with one worker for each pair of hosts: fragments have no ports") {
  const Interpreter program = program_for(4);
  const uint64_t queue = program.run(make_udp({}, {}, pattern(100)));
  for (uint16_t port = 1; port < 200; port++) {
    CHECK_EQ(program.run(make_udp({}, {.source_port = port, .destination_port = port}, pattern(100))), queue);
  }
  for (uint16_t offset = 1; offset < 100; offset++) {
    CHECK_EQ(program.run(make_ip({.fragment = offset}, kProtocolUdp, pattern(100, offset))), queue);
  }
}

TEST("pairs of hosts are spread over all workers, by either address") {
  for (const bool by_source : {true, false}) {
    const Interpreter program = program_for(4);
    std::vector<unsigned> pairs(4);
    for (uint32_t i = 0; i < 400; i++) {
      Ip ip;
      (by_source ? ip.source : ip.destination) += i;
      pairs.at(worker_of(program.run(make_udp(ip, {}, {}))))++;
    }
    CHECK_NOTE(*std::min_element(pairs.begin(), pairs.end()) > 50, show(by_source));
  }
}

TEST("a packet without a whole header takes the first queue") {
  const Interpreter program = program_for(4);
  const Bytes packet = make_tcp({}, {}, {});
  for (size_t length = 0; length < 20; length++) {
    const Bytes cut(packet.begin(), packet.begin() + static_cast<std::ptrdiff_t>(length));
    CHECK_EQ_NOTE(program.run(cut), 0, show(length));
  }
}

TEST("a signal that comes while the kernel looks at the program is none of its faults") {
  FakeKernel kernel;
  kernel.next_fd = 1 << 20;
  int calls = 0;
  kernel.on_bpf = [&](const void*) {
    kernel.failing["bpf"] = EAGAIN;
    if (++calls == 3) kernel.failing.erase("bpf");
  };
  CHECK(steer_flows(kernel, kTunFd, 2).ok());
  CHECK_EQ(calls, 3);
  kernel.on_bpf = [&](const void*) { kernel.failing["bpf"] = EAGAIN; };
  const Result<void> refused = steer_flows(kernel, kTunFd, 2);
  CHECK(!refused.ok());
  CHECK_EQ(refused.error().code, EAGAIN);
}

TEST("a kernel that takes no program says at which step and why") {
  FakeKernel kernel;
  kernel.failing["bpf"] = EPERM;
  const Result<void> refused = steer_flows(kernel, kTunFd, 2);
  CHECK(!refused.ok());
  CHECK_EQ(refused.error().code, EPERM);
  CHECK_EQ(std::string(refused.error().operation), "BPF_PROG_LOAD");

  FakeKernel old;
  old.next_fd = 1 << 20;
  old.on_ioctl = [](unsigned long, void*) { return ENOTTY; };
  const Result<void> unknown = steer_flows(old, kTunFd, 2);
  CHECK(!unknown.ok());
  CHECK_EQ(unknown.error().code, ENOTTY);
  CHECK_EQ(std::string(unknown.error().operation), "TUNSETSTEERINGEBPF");
}

}  // namespace
}  // namespace tsflannel::testing
