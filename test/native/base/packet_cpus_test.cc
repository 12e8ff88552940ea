#include "../../../native/core/base/packet_cpus.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "../../../native/core/udp/udp_socket.h"
#include "../worker/fake_kernel.h"

namespace tsflannel::testing {
namespace {

/// A file in memory that stands for a map.
int make_memory() {
  const int fd = ::memfd_create("map", MFD_CLOEXEC);
  CHECK(fd >= 0);
  CHECK_EQ(::ftruncate(fd, 4096), 0);
  return fd;
}

UdpSockets make_sockets(unsigned count) {
  UdpSockets sockets;
  for (unsigned i = 0; i < count; i++) sockets.sockets.emplace_back(make_memory());
  return sockets;
}

TEST("what a program writes for a worker is read for that one") {
  FakeKernel kernel;
  const int map = kernel.next_fd = make_memory();
  const Result<PacketCpus> cpus = PacketCpus::create(kernel);
  CHECK(cpus.ok());
  for (uint32_t worker = 0; worker < PacketCpus::kMaxWorkers; worker++) {
    const uint32_t cpu = 100 + worker;
    CHECK_EQ(::pwrite(map, &cpu, sizeof cpu, worker * sizeof cpu), static_cast<ssize_t>(sizeof cpu));
  }
  for (unsigned worker = 0; worker < PacketCpus::kMaxWorkers; worker++) {
    CHECK_EQ(cpus.value().latest(worker), 100 + worker);
  }
}

TEST("each socket records for its own worker, and keeps every datagram whole") {
  FakeKernel kernel;
  kernel.next_fd = make_memory();
  const Result<PacketCpus> cpus = PacketCpus::create(kernel);
  CHECK(cpus.ok());
  std::vector<std::vector<bpf_insn>> programs;
  kernel.on_bpf = [&](const void* attributes) {
    const auto* load = static_cast<const bpf_attr*>(attributes);
    const auto* first = reinterpret_cast<const bpf_insn*>(load->insns);
    programs.emplace_back(first, first + load->insn_cnt);
    kernel.next_fd = make_memory();  // of the program
  };
  CHECK(record_cpus(kernel, make_sockets(3), cpus.value()).ok());
  CHECK_EQ(programs.size(), 3);
  CHECK_EQ(kernel.calls["SO_ATTACH_BPF"], 3);
  for (size_t worker = 0; worker < programs.size(); worker++) {
    const std::vector<bpf_insn>& program = programs[worker];
    const auto record = cpus.value().record(worker);
    CHECK_EQ(program.size(), record.size() + 2);
    CHECK_EQ(program[2].imm, static_cast<int32_t>(worker * sizeof(uint32_t)));
    CHECK_EQ(program[record.size()].dst_reg, BPF_REG_0);
    CHECK_EQ(program[record.size()].imm, INT32_MAX);
  }
}

TEST("a kernel that takes no map, no program or none at a socket says at which step and why") {
  FakeKernel none;
  none.failing["bpf"] = EPERM;
  const Result<PacketCpus> refused = PacketCpus::create(none);
  CHECK(!refused.ok());
  CHECK_EQ(refused.error().code, EPERM);
  CHECK_EQ(std::string(refused.error().operation), "BPF_MAP_CREATE");

  FakeKernel kernel;
  kernel.next_fd = make_memory();
  const Result<PacketCpus> cpus = PacketCpus::create(kernel);
  CHECK(cpus.ok());
  kernel.failing["bpf"] = EPERM;
  const Result<void> unloaded = record_cpus(kernel, make_sockets(1), cpus.value());
  CHECK(!unloaded.ok());
  CHECK_EQ(unloaded.error().code, EPERM);
  CHECK_EQ(std::string(unloaded.error().operation), "BPF_PROG_LOAD");

  kernel.failing.erase("bpf");
  kernel.next_fd = make_memory();
  kernel.failing["SO_ATTACH_BPF"] = ENOPROTOOPT;
  const Result<void> unattached = record_cpus(kernel, make_sockets(1), cpus.value());
  CHECK(!unattached.ok());
  CHECK_EQ(unattached.error().code, ENOPROTOOPT);
  CHECK_EQ(std::string(unattached.error().operation), "SO_ATTACH_BPF");
}

}  // namespace
}  // namespace tsflannel::testing
