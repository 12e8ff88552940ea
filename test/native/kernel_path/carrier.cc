// A native tunnel with the kernel path beside it, for test/host/kernel-path-*.test.ts.
//
//   carrier DEVICE UPLINK LOCAL OWN/LENGTH RECEIVER [SUBNET/LENGTH=OUTER,MTU]…
//
//   DEVICE     the TUN to make
//   UPLINK     the device that has LOCAL, this host's public address
//   OWN        this host's subnet
//   RECEIVER   xdp or tc: what receives; auto: tc, and bulk is left to the tunnel; tunnel: no program at all, neither
//              for receiving nor for sending
//   MTU        of what the kernel sends to that peer; 0: the tunnel sends
//
// Says "ready" once packets can flow, and then, for every line of input, what has been counted, as one line of JSON.
// Takes itself over at each line "exchange", as the next process would. Ends with its input.
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../../../native/core/kernel_path/kernel_carrier.h"
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

/// As they come to the next process: further numbers of the same.
std::vector<UniqueFd> inherited(const std::vector<int>& numbers) {
  std::vector<UniqueFd> copies;
  for (const int number : numbers) copies.emplace_back(fcntl(number, F_DUPFD_CLOEXEC, 0));
  return copies;
}

class NoEvents final : public EventSink {
 public:
  void on_event(const TunnelEvent&) override {}
};

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
  std::vector<KernelCarrierRoute> routes = {{.prefix = own.prefix, .length = own.length}};
  for (size_t i = 5; i < arguments.size(); i++) {
    const std::string& text = arguments[i];
    const size_t equals = text.find('=');
    const size_t comma = text.find(',');
    const Subnet subnet = subnet_of(text.substr(0, equals));
    const uint32_t outer = address_of(text.substr(equals + 1, comma - equals - 1));
    const auto mtu = static_cast<uint32_t>(std::atoi(text.c_str() + comma + 1));
    state.routes.push_back({subnet.prefix, subnet.length, outer});
    routes.push_back({subnet.prefix, subnet.length, outer, mtu});
  }

  NoEvents events;
  TunnelConfig tunnel_config;
  tunnel_config.device = arguments[0];
  tunnel_config.workers = 1;
  tunnel_config.bind = {.address = local, .port = kPort};
  const std::unique_ptr<Tunnel> tunnel = expect(Tunnel::open(host_kernel(), events, tunnel_config, state));

  const KernelPathConfig config{
      .uplink = index_of(arguments[1]), .tun = index_of(tunnel->device()), .local = local, .port = kPort};
  const ProgramObject object = expect(ProgramObject::parse(kernel_path_file()));
  const KernelReceiver kind = receiver == "xdp" ? KernelReceiver::kXdp : KernelReceiver::kTc;
  std::optional<KernelCarrier> carrier;
  const auto open = [&](KernelCarrierRemains remains) {
    carrier = expect(KernelCarrier::open(host_kernel(), object, config, kind, routes, std::move(remains)));
    if (receiver == "auto") expect(carrier->leave_bulk(std::chrono::hours(1)));
  };
  if (receiver != "tunnel") open({});
  std::printf("ready\n");
  std::fflush(stdout);

  for (std::string line; std::getline(std::cin, line);) {
    if (line == "exchange" && carrier) {
      open({.maps = inherited(carrier->map_descriptors()), .links = inherited(carrier->link_descriptors())});
    }
    const auto counters = carrier ? carrier->counters() : std::array<KernelTraffic, kKernelCounterCount>{};
    const TunnelCounters native = tunnel->counters();
    std::printf("{\"native\":{\"sent\":%" PRIu64 ",\"received\":%" PRIu64 "},\"kernel\":[", native.tx_packets,
                native.rx_packets);
    for (size_t i = 0; i < counters.size(); i++) {
      std::printf("%s%" PRIu64, i == 0 ? "" : ",", static_cast<uint64_t>(counters.at(i).packets));
    }
    std::printf("]}\n");
    std::fflush(stdout);
  }
  if (carrier) expect(carrier->detach());
  return 0;
}
