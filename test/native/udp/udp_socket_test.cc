#include "../../../native/core/udp/udp_socket.h"

#include "../worker/fake_kernel.h"

namespace tsflannel::testing {
namespace {

const UdpOptions kOne = {.bind = {ipv4(192, 0, 2, 1), 8285}};
const UdpOptions kThree = {.bind = {ipv4(192, 0, 2, 1), 8285}, .sockets = 3};

struct Rig {
  FakeKernel kernel;
  Rig() { kernel.next_fd = 1 << 20; }
};

TEST("a single socket sends with DF, receives in bulk, and shares its port with nobody") {
  Rig rig;
  const Result<UdpSockets> sockets = open_udp(rig.kernel, kOne);
  CHECK(sockets.ok());
  CHECK_EQ(sockets.value().sockets.size(), 1);
  CHECK_EQ(rig.kernel.options["IP_MTU_DISCOVER"], IP_PMTUDISC_DO);
  CHECK_EQ(rig.kernel.options["UDP_GRO"], 1);
  CHECK_EQ(rig.kernel.options.count("SO_REUSEPORT"), 0);
  CHECK(rig.kernel.options["SO_RCVBUFFORCE"] >= 4 << 20);
  CHECK(rig.kernel.options["SO_SNDBUFFORCE"] >= 256 << 10);
  // Nothing else, above all no SO_NO_CHECK: with it every UDP_SEGMENT send is EINVAL.
  CHECK_EQ(rig.kernel.options.size(), 4);
  CHECK_EQ(rig.kernel.calls["bind"], 1);
  for (const Offload each : {Offload::kUdpSegment, Offload::kUdpGro, Offload::kBatch}) {
    CHECK(sockets.value().offloads.has(each));
  }
}

TEST("several sockets share the port only after nobody else was found there") {
  Rig rig;
  const Result<UdpSockets> sockets = open_udp(rig.kernel, kThree);
  CHECK(sockets.ok());
  CHECK_EQ(sockets.value().sockets.size(), 3);
  CHECK_EQ(rig.kernel.calls["bind"], 4);
  CHECK_EQ(rig.kernel.calls["SO_REUSEPORT"], 3);

  Rig taken;
  taken.kernel.failing["bind"] = EADDRINUSE;
  const Result<UdpSockets> refused = open_udp(taken.kernel, kThree);
  CHECK(!refused.ok());
  CHECK_EQ(refused.error().code, EADDRINUSE);
  CHECK_EQ(std::string(refused.error().operation), std::string("bind-socket"));
  CHECK_EQ(taken.kernel.calls["SO_REUSEPORT"], 0);
}

TEST("without privilege the buffers are as large as the system allows") {
  Rig rig;
  rig.kernel.failing["SO_RCVBUFFORCE"] = EPERM;
  rig.kernel.failing["SO_SNDBUFFORCE"] = EPERM;
  CHECK(open_udp(rig.kernel, kOne).ok());
  CHECK(rig.kernel.options["SO_RCVBUF"] >= 4 << 20);
  CHECK(rig.kernel.options["SO_SNDBUF"] >= 256 << 10);
}

TEST("what the kernel lacks or must not be used is not in use") {
  Rig old;
  old.kernel.failing["UDP_GRO"] = ENOPROTOOPT;
  old.kernel.failing["UDP_SEGMENT?"] = ENOPROTOOPT;
  const Result<UdpSockets> sockets = open_udp(old.kernel, kOne);
  CHECK(sockets.ok());
  CHECK_EQ(sockets.value().offloads.bits(), OffloadSet::bit(Offload::kBatch));

  Rig rig;
  UdpOptions options = kOne;
  options.disabled = OffloadSet::all();
  const Result<UdpSockets> plain = open_udp(rig.kernel, options);
  CHECK(plain.ok());
  CHECK_EQ(plain.value().offloads.bits(), 0);
  CHECK_EQ(rig.kernel.options["UDP_GRO"], 0);
}

TEST("a socket without DF is refused: half of the datagrams would go out without") {
  Rig rig;
  rig.kernel.failing["IP_MTU_DISCOVER"] = EINVAL;
  const Result<UdpSockets> sockets = open_udp(rig.kernel, kOne);
  CHECK(!sockets.ok());
  CHECK_EQ(std::string(sockets.error().operation), std::string("IP_MTU_DISCOVER"));
}

TEST("the path MTU is what a connected socket is told, and unknown when it is told nothing") {
  Rig rig;
  const Result<PathMtuProbe> probe = PathMtuProbe::open(rig.kernel, ipv4(192, 0, 2, 1));
  CHECK(probe.ok());
  rig.kernel.path_mtu = 1400;
  CHECK_EQ(probe.value().path_mtu(rig.kernel, ipv4(192, 0, 2, 2)), 1400);
  rig.kernel.path_mtu = -ENOTCONN;
  CHECK_EQ(probe.value().path_mtu(rig.kernel, ipv4(192, 0, 2, 2)), 0);
  rig.kernel.path_mtu = 1400;
  rig.kernel.failing["connect"] = ENETUNREACH;
  CHECK_EQ(probe.value().path_mtu(rig.kernel, ipv4(192, 0, 2, 2)), 0);
}

}  // namespace
}  // namespace tsflannel::testing
