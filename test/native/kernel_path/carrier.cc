// A native tunnel with the kernel path beside it, for test/host/kernel-path-*.test.ts.
//
//   carrier DEVICE UPLINK LOCAL OWN/LENGTH RECEIVER [SUBNET/LENGTH=OUTER,MTU]…
//
//   DEVICE     the TUN to make
//   UPLINK     the device that has LOCAL, this host's public address
//   OWN        this host's subnet
//   RECEIVER   xdp or tc: what receives; tunnel: no program at all, neither for receiving nor for sending
//   MTU        of what the kernel sends to that peer; 0: the tunnel sends
//
// TSFLANNEL_PINS names a directory of a bpffs: maps and programs that are pinned there are taken over, and stay if this
// program is killed. The device must be there then, too.
//
// Says "ready" once packets can flow, and then, for every line of input, what has been counted, as one line of JSON.
// Exchanges all programs for newly loaded ones at each line "exchange". Ends with its input.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../../../native/core/kernel_path/attachment.h"
#include "../../../native/core/kernel_path/kernel_path.h"
#include "../../../native/core/tun/flow_steering.h"
#include "../../../native/core/worker/tunnel.h"
#include "compiled.h"

using namespace tsflannel;
using namespace tsflannel::testing;

namespace {

constexpr uint16_t kPort = 8285;
constexpr uint16_t kMtu = 1472;

[[noreturn]] void fail(const Error& error) {
  std::fprintf(stderr, "carrier: %s: %s (%s)\n", error.operation, std::strerror(error.code), error.detail.c_str());
  std::exit(1);
}

template <typename T>
T expect(Result<T> result) {
  if (!result) fail(result.error());
  return std::move(result).value();
}

void expect(const Result<void>& result) {
  if (!result) fail(result.error());
}

uint32_t address_of(const std::string& text) {
  in_addr address{};
  if (inet_pton(AF_INET, text.c_str(), &address) != 1) fail({"read address", EINVAL, text});
  return ntohl(address.s_addr);
}

/// "192.0.2.0/24"
Subnet subnet_of(const std::string& text) {
  const size_t slash = text.find('/');
  if (slash == std::string::npos) fail({"read subnet", EINVAL, text});
  return {address_of(text.substr(0, slash)), static_cast<uint8_t>(std::atoi(text.c_str() + slash + 1))};
}

uint32_t index_of(const std::string& name) {
  const unsigned index = if_nametoindex(name.c_str());
  if (index == 0) fail({"find device", errno, name});
  return index;
}

class NoEvents final : public EventSink {
 public:
  void on_event(const TunnelEvent&) override {}
};

/// Of a device that is there, for one worker; the caller closes them.
std::vector<int> open_queues(const std::string& device) {
  std::vector<int> queues;
  for (unsigned i = 0; i < kLanesPerWorker; i++) {
    ifreq request{};
    device.copy(static_cast<char*>(request.ifr_name), IFNAMSIZ - 1);
    request.ifr_flags = static_cast<short>(IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE);
    queues.push_back(open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (ioctl(queues.back(), TUNSETIFF, &request) < 0) fail({"TUNSETIFF", errno, device});
  }
  return queues;
}

struct Place {
  const char* name;
  KernelProgram program;
  uint32_t device;
  AttachPoint point;
};

KernelPathMaps open_maps(const char* pins) {
  constexpr uint32_t kRoutes = 1024;
  constexpr uint32_t kPeers = 64;
  if (pins == nullptr) return expect(KernelPathMaps::create(host_kernel(), kRoutes, kPeers));
  Result<KernelPathMaps> adopted = KernelPathMaps::adopt(host_kernel(), pins, kPeers);
  if (adopted) return std::move(adopted).value();
  if (adopted.error().code != ENOENT) fail(adopted.error());
  KernelPathMaps maps = expect(KernelPathMaps::create(host_kernel(), kRoutes, kPeers));
  expect(maps.pin(pins));
  return maps;
}

Result<Attachment> attach(const Place& place, const UniqueFd& program, const char* pins, uint32_t handle) {
  const std::string path = std::string(pins == nullptr ? "" : pins) + "/" + place.name;
  if (pins != nullptr) {
    Result<Attachment> adopted = Attachment::adopt(host_kernel(), path, place.device, place.point);
    if (adopted) {
      expect(adopted.value().exchange(program));
      return adopted;
    }
    if (adopted.error().code != ENOENT) fail(adopted.error());
  }
  Result<Attachment> attached = Attachment::attach(host_kernel(), program, place.device, place.point, handle);
  if (attached && pins != nullptr) expect(attached.value().pin(path));
  return attached;
}

void detach(std::vector<Attachment>& attachments) {
  for (auto each = attachments.rbegin(); each != attachments.rend(); ++each) expect(each->detach());
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() < 5) fail({"read arguments", EINVAL, "see the head of carrier.cc"});
  const std::string& receiver = arguments[4];
  const uint32_t local = address_of(arguments[2]);
  const Subnet own = subnet_of(arguments[3]);

  TunnelState state;
  state.own = {own, {local, 32}};
  state.icmp_source = own.prefix;
  state.mtu = kMtu;
  state.verify_source = VerifySource::kStrict;
  std::vector<KernelPathRoute> routes = {{.prefix = own.prefix, .length = own.length}};
  for (size_t i = 5; i < arguments.size(); i++) {
    const std::string& text = arguments[i];
    const size_t equals = text.find('=');
    const size_t comma = text.find(',');
    const Subnet subnet = subnet_of(text.substr(0, equals));
    const uint32_t outer = address_of(text.substr(equals + 1, comma - equals - 1));
    const auto mtu = static_cast<uint32_t>(std::atoi(text.c_str() + comma + 1));
    state.routes.push_back({subnet.prefix, subnet.length, outer});
    routes.push_back({subnet.prefix, subnet.length, outer, static_cast<uint32_t>(i), mtu});
  }

  const char* pins = std::getenv("TSFLANNEL_PINS");
  NoEvents events;
  TunnelConfig tunnel_config;
  tunnel_config.device = arguments[0];
  tunnel_config.workers = 1;
  tunnel_config.bind = {.address = local, .port = kPort};
  if (pins != nullptr) tunnel_config.inherited_tun = open_queues(arguments[0]);
  const std::unique_ptr<Tunnel> tunnel = expect(Tunnel::open(host_kernel(), events, tunnel_config, state));

  const KernelPathConfig config{
      .uplink = index_of(arguments[1]), .tun = index_of(tunnel->device()), .local = local, .port = kPort};
  KernelPathMaps maps = open_maps(pins);
  expect(maps.set_routes(routes));
  const ProgramObject object = expect(ProgramObject::parse(kernel_path_file()));

  // What receives comes first, and behind XDP what its marks are for.
  std::vector<Place> places;
  if (receiver != "tunnel") places.push_back({"settle", KernelProgram::kSettle, config.tun, AttachPoint::kIngress});
  if (receiver == "xdp") {
    places.push_back({"deliver", KernelProgram::kDeliver, config.uplink, AttachPoint::kIngress});
    places.push_back({"receive_xdp", KernelProgram::kReceiveXdp, config.uplink, AttachPoint::kXdp});
  }
  if (receiver == "tc")
    places.push_back({"receive_tc", KernelProgram::kReceiveTc, config.uplink, AttachPoint::kIngress});
  if (receiver != "tunnel") places.push_back({"send", KernelProgram::kSend, config.tun, AttachPoint::kEgress});
  std::vector<Attachment> attachments;
  for (const Place& each : places) {
    Result<Attachment> attached = attach(
        each, expect(load_kernel_program(host_kernel(), object, each.program, maps, config)), pins, config.local);
    if (!attached) {
      detach(attachments);
      fail(attached.error());
    }
    attachments.push_back(std::move(attached).value());
  }
  std::printf("ready\n");
  std::fflush(stdout);

  for (std::string line; std::getline(std::cin, line);) {
    if (line == "exchange") {
      for (size_t i = 0; i < places.size(); i++) {
        expect(attachments[i].exchange(
            expect(load_kernel_program(host_kernel(), object, places[i].program, maps, config))));
      }
    }
    const auto counters = expect(maps.counters());
    const TunnelCounters native = tunnel->counters();
    std::printf("{\"native\":{\"sent\":%" PRIu64 ",\"received\":%" PRIu64 "},\"kernel\":[", native.tx_packets,
                native.rx_packets);
    for (size_t i = 0; i < counters.size(); i++) {
      std::printf("%s%" PRIu64, i == 0 ? "" : ",", static_cast<uint64_t>(counters.at(i).packets));
    }
    std::printf("]}\n");
    std::fflush(stdout);
  }
  detach(attachments);
  if (pins != nullptr) expect(KernelPathMaps::unpin(pins));
  return 0;
}
