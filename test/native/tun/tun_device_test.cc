#include "../../../native/core/tun/tun_device.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>

#include "../../../native/core/tun/flow_steering.h"
#include "../worker/fake_kernel.h"

#ifndef TUNSETSTEERINGEBPF
#define TUNSETSTEERINGEBPF _IOR('T', 224, int)
#endif
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

namespace tsflannel::testing {
namespace {

/// A TUN driver that knows some offloads.
struct Driver {
  unsigned known = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6;
  unsigned features = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
  int refusal = 0;  ///< of TUNSETIFF
  bool knows_steering = true;

  unsigned offload = 0;
  int header_size = 0;
  std::vector<unsigned> flags;        // of each TUNSETIFF
  std::vector<std::string> asked;     // name of each TUNSETIFF
  std::string existing = "flannel0";  // for TUNGETIFF
  unsigned existing_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;

  int answer(unsigned long request, void* argument) {
    auto* interface = static_cast<ifreq*>(argument);
    if (request == TUNGETFEATURES) {
      *static_cast<unsigned*>(argument) = features;
    } else if (request == TUNSETIFF) {
      if (refusal != 0) return refusal;
      flags.push_back(static_cast<unsigned short>(interface->ifr_flags));
      asked.emplace_back(interface->ifr_name);
      if (asked.back() == "flannel%d") std::memcpy(interface->ifr_name, "flannel7", 9);
    } else if (request == TUNSETVNETHDRSZ) {
      header_size = *static_cast<int*>(argument);
    } else if (request == TUNSETOFFLOAD) {
      const auto wanted = static_cast<unsigned>(reinterpret_cast<uintptr_t>(argument));
      if ((wanted & ~known) != 0) return EINVAL;
      offload = wanted;
    } else if (request == TUNGETIFF) {
      std::memcpy(interface->ifr_name, existing.c_str(), existing.size() + 1);
      interface->ifr_flags = static_cast<short>(existing_flags);
    } else if (request != TUNSETSTEERINGEBPF || !knows_steering) {
      return ENOTTY;
    }
    return 0;
  }
};

struct Rig {
  Driver driver;
  FakeKernel kernel;
  Rig() {
    kernel.next_fd = 1 << 20;
    kernel.on_ioctl = [this](unsigned long request, void* argument) { return driver.answer(request, argument); };
  }
};

OffloadSet offloads_of(std::initializer_list<Offload> list) {
  OffloadSet set;
  for (const Offload each : list) set.add(each);
  return set;
}

TEST("a TUN of a new kernel has every offload") {
  Rig rig;
  const Result<TunDevice> device = open_tun(rig.kernel, {.name = "flannel%d"});
  CHECK(device.ok());
  CHECK_EQ(device.value().name, std::string("flannel7"));
  CHECK_EQ(
      device.value().offloads.bits(),
      offloads_of({Offload::kVnetHdr, Offload::kTso, Offload::kUso, Offload::kTcpMerge, Offload::kUdpMerge}).bits());
  CHECK_EQ(rig.driver.offload, rig.driver.known);
  CHECK_EQ(rig.driver.header_size, 10);
  const unsigned flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
  CHECK(rig.driver.flags == (std::vector<unsigned>{flags | IFF_TUN_EXCL, flags}));
}

TEST("what an older kernel lacks is given up step by step") {
  struct Case {
    unsigned known;
    unsigned offload;
    OffloadSet expected;
  };
  const unsigned csum = TUN_F_CSUM;
  const unsigned tso = TUN_F_TSO4 | TUN_F_TSO6;
  const std::vector<Case> cases = {
      {csum | tso | TUN_F_TSO_ECN, csum | tso | TUN_F_TSO_ECN,
       offloads_of({Offload::kVnetHdr, Offload::kTso, Offload::kTcpMerge})},
      {csum | tso, csum | tso, offloads_of({Offload::kVnetHdr, Offload::kTso, Offload::kTcpMerge})},
      {csum, csum, offloads_of({Offload::kVnetHdr, Offload::kTcpMerge})},
      {0, 0, offloads_of({Offload::kVnetHdr, Offload::kTcpMerge})},
  };
  for (const Case& each : cases) {
    Rig rig;
    rig.driver.known = each.known;
    const Result<TunDevice> device = open_tun(rig.kernel, {.name = "flannel0"});
    CHECK(device.ok());
    CHECK_EQ(device.value().offloads.bits(), each.expected.bits());
    CHECK_EQ(rig.driver.offload, each.offload);
  }
}

TEST("a kernel without vnet headers gives a plain TUN") {
  Rig rig;
  rig.driver.features = IFF_TUN | IFF_NO_PI;
  const Result<TunDevice> device = open_tun(rig.kernel, {.name = "flannel0"});
  CHECK(device.ok());
  CHECK_EQ(device.value().offloads.bits(), 0);
  const unsigned flags = IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE;
  CHECK(rig.driver.flags == (std::vector<unsigned>{flags | IFF_TUN_EXCL, flags}));
}

TEST("offloads that must not be used are not asked for") {
  Rig rig;
  const OffloadSet disabled = offloads_of({Offload::kTso, Offload::kUdpMerge});
  const Result<TunDevice> device = open_tun(rig.kernel, {.name = "flannel0", .disabled = disabled});
  CHECK(device.ok());
  CHECK_EQ(device.value().offloads.bits(), offloads_of({Offload::kVnetHdr, Offload::kUso, Offload::kTcpMerge}).bits());
  CHECK_EQ(rig.driver.offload, unsigned{TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6});

  Rig plain;
  const Result<TunDevice> bare =
      open_tun(plain.kernel, {.name = "flannel0", .disabled = offloads_of({Offload::kVnetHdr})});
  CHECK(bare.ok());
  CHECK_EQ(bare.value().offloads.bits(), 0);
}

TEST("each worker has its lanes as queues of one device, which must be new") {
  Rig rig;
  const Result<TunDevice> device = open_tun(rig.kernel, {.name = "flannel%d", .workers = 2});
  CHECK(device.ok());
  CHECK_EQ(device.value().queues.size(), 2 * kLanesPerWorker);
  const unsigned flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
  CHECK(rig.driver.flags == (std::vector<unsigned>{flags | IFF_TUN_EXCL, flags, flags, flags}));
  CHECK(rig.driver.asked == (std::vector<std::string>{"flannel%d", "flannel7", "flannel7", "flannel7"}));
}

TEST("where no program may choose the queue, a worker has one, so that no flow is spread over two") {
  Rig refused;
  refused.kernel.failing["bpf"] = EPERM;
  Rig old;
  old.driver.knows_steering = false;
  for (Rig* rig : {&refused, &old}) {
    for (const unsigned workers : {1U, 3U}) {
      const Result<TunDevice> device = open_tun(rig->kernel, {.name = "flannel0", .workers = workers});
      CHECK(device.ok());
      CHECK_EQ(device.value().queues.size(), workers);
    }
  }
}

TEST("refusals name the step and keep the errno") {
  Rig rig;
  rig.kernel.failing["open"] = ENOENT;
  const Result<TunDevice> missing = open_tun(rig.kernel, {.name = "flannel0"});
  CHECK(!missing.ok());
  CHECK_EQ(missing.error().code, ENOENT);
  CHECK_EQ(std::string(missing.error().operation), std::string("open-tun"));

  Rig taken;
  taken.driver.refusal = EBUSY;
  const Result<TunDevice> busy = open_tun(taken.kernel, {.name = "flannel0"});
  CHECK(!busy.ok());
  CHECK_EQ(busy.error().code, EBUSY);
  CHECK_EQ(std::string(busy.error().operation), std::string("create-device"));

  for (const char* name : {"", "a-name-of-16-byte"}) {
    const Result<TunDevice> bad = open_tun(rig.kernel, {.name = name});
    CHECK(!bad.ok());
    CHECK_EQ(bad.error().code, EINVAL);
  }
}

/// A real descriptor, to see whether it is closed.
int real_descriptor() {
  return ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

bool is_open(int fd) {
  return ::fcntl(fd, F_GETFD) >= 0;
}

TEST("inherited descriptors are taken over if name, number and vnet header fit, and closed if not") {
  struct Case {
    std::string name;
    unsigned flags;
    unsigned workers;
    unsigned queues;
    bool is_steered;
    bool fits;
  };
  const unsigned good = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
  const std::vector<Case> cases = {
      {"flannel0", good, 1, kLanesPerWorker, true, true},
      {"flannel0", good, 2, 2 * kLanesPerWorker, true, true},
      {"flannel0", good, 1, 1, false, true},
      {"flannel0", good, 1, 1, true, false},
      {"flannel0", good, 2, 2, true, false},
      {"flannel0", good, 1, kLanesPerWorker, false, false},
      {"flannel0", good, 2, kLanesPerWorker, true, false},
      {"flannel1", good, 1, kLanesPerWorker, true, false},
      {"flannel0", IFF_TUN | IFF_NO_PI, 1, kLanesPerWorker, true, false},
      {"flannel0", IFF_TUN | IFF_VNET_HDR, 1, kLanesPerWorker, true, false},
      {"flannel0", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, 1, kLanesPerWorker, true, false},
  };
  for (const Case& each : cases) {
    Rig rig;
    rig.driver.existing = each.name;
    rig.driver.existing_flags = each.flags;
    if (!each.is_steered) rig.kernel.failing["bpf"] = EPERM;
    std::vector<int> numbers;
    std::vector<UniqueFd> queues;
    for (unsigned i = 0; i < each.queues; i++) queues.emplace_back(numbers.emplace_back(real_descriptor()));
    {
      const Result<TunDevice> device =
          adopt_tun(rig.kernel, {.name = "flannel0", .workers = each.workers}, std::move(queues));
      CHECK_EQ(device.ok(), each.fits);
      for (size_t i = 0; device.ok() && i < numbers.size(); i++) {
        CHECK_EQ(device.value().queues.at(i).get(), numbers[i]);
        CHECK((::fcntl(numbers[i], F_GETFL) & O_NONBLOCK) != 0);
      }
      if (device.ok()) CHECK_EQ(rig.driver.offload, rig.driver.known);
    }
    for (const int number : numbers) CHECK(!is_open(number));
  }
}

}  // namespace
}  // namespace tsflannel::testing
