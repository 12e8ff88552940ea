#include "test_run.h"

#include <linux/bpf.h>

#include <utility>

#include "compiled.h"

namespace tsflannel::testing {
namespace {

// More than any program adds.
constexpr size_t kRoom = 256;

std::unique_ptr<LoadedKernelPath> refused(const Error& error) {
  CHECK_NOTE(false, std::string(error.operation) + ": " + show(error.code) + " " + error.detail);
  return nullptr;
}

}  // namespace

std::unique_ptr<LoadedKernelPath> LoadedKernelPath::load(const KernelPathConfig& config,
                                                         const std::vector<KernelPathRoute>& routes) {
  const Result<ProgramObject> object = ProgramObject::parse(kernel_path_file());
  if (!object) return refused(object.error());
  Result<KernelPathMaps> maps = KernelPathMaps::create(host_kernel(), 1024);
  if (!maps) return refused(maps.error());
  std::unique_ptr<LoadedKernelPath> loaded(new LoadedKernelPath(std::move(maps).value()));
  const Result<void> set = loaded->maps_.set_routes(routes);
  if (!set) return refused(set.error());
  for (size_t i = 0; i < kKernelProgramCount; i++) {
    Result<UniqueFd> program =
        load_kernel_program(host_kernel(), object.value(), static_cast<KernelProgram>(i), loaded->maps_, config);
    if (!program) return refused(program.error());
    loaded->programs_.at(i) = std::move(program).value();
  }
  return loaded;
}

Outcome LoadedKernelPath::run(KernelProgram program, const Bytes& packet, const std::optional<SuperPacket>& super) {
  before_ = maps_.counters();
  return run_unwatched(program, packet, super);
}

Outcome LoadedKernelPath::run_unwatched(KernelProgram program, const Bytes& packet,
                                        const std::optional<SuperPacket>& super) {
  Outcome outcome;
  outcome.packet.resize(packet.size() + kRoom);
  __sk_buff context{};
  bpf_attr attributes{};
  attributes.test.prog_fd = static_cast<uint32_t>(programs_.at(static_cast<size_t>(program)).get());
  attributes.test.data_in = reinterpret_cast<uint64_t>(packet.data());
  attributes.test.data_size_in = static_cast<uint32_t>(packet.size());
  attributes.test.data_out = reinterpret_cast<uint64_t>(outcome.packet.data());
  attributes.test.data_size_out = static_cast<uint32_t>(outcome.packet.size());
  if (super) {
    context.gso_size = super->segment;
    context.gso_segs = super->count;
    attributes.test.ctx_in = reinterpret_cast<uint64_t>(&context);
    attributes.test.ctx_size_in = sizeof context;
  }
  const int failed = host_kernel().bpf(BPF_PROG_TEST_RUN, &attributes, sizeof attributes);
  CHECK_EQ_NOTE(failed, 0, "BPF_PROG_TEST_RUN of " + show(packet.size()) + " bytes: " + hex(packet));
  outcome.verdict = attributes.test.retval;
  outcome.packet.resize(failed == 0 ? attributes.test.data_size_out : 0);
  return outcome;
}

KernelCounter LoadedKernelPath::moved(KernelTraffic* by) {
  const auto now = maps_.counters();
  auto found = kKernelCounterCount;
  for (size_t i = 0; i < kKernelCounterCount; i++) {
    if (now.at(i).packets == before_.at(i).packets) continue;
    CHECK_EQ_NOTE(found, kKernelCounterCount, "two counters moved");
    found = static_cast<KernelCounter>(i);
    if (by != nullptr) *by = {now.at(i).packets - before_.at(i).packets, now.at(i).bytes - before_.at(i).bytes};
  }
  return found;
}

}  // namespace tsflannel::testing
