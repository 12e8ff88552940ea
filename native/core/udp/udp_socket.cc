#include "udp_socket.h"

#include <netinet/ip.h>
#include <netinet/udp.h>

#include <array>
#include <cerrno>
#include <utility>

#include "../base/bpf.h"
#include "../base/bytes.h"

// Older C library headers than the kernel we run on: include/uapi/linux/udp.h.
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103  // Linux 4.18
#endif
#ifndef UDP_GRO
#define UDP_GRO 104  // Linux 5.0
#endif

namespace tsflannel {
namespace {

// One burst of super-packets from each of many peers while the worker is not scheduled: 8 MiB are 80 ms at 800 Mb/s.
constexpr int kReceiveBufferBytes = 8 << 20;
// A super-packet is charged with about twice its size; eight of them keep a link busy between two wake-ups, and more
// would only add delay.
constexpr int kSendBufferBytes = 1 << 20;

sockaddr* as_sockaddr(sockaddr_in* address) {
  return reinterpret_cast<sockaddr*>(address);
}

Result<UniqueFd> open_socket(Kernel& kernel) {
  const int fd = kernel.socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
  if (fd < 0) return Error{"socket", -fd, ""};
  return UniqueFd(fd);
}

Result<void> bind_to(Kernel& kernel, int fd, Endpoint endpoint) {
  sockaddr_in address = to_sockaddr(endpoint);
  const int failed = kernel.bind(fd, as_sockaddr(&address), sizeof address);
  if (failed < 0) return Error{kBindStep, -failed, ""};
  return {};
}

/// The FORCE form needs CAP_NET_ADMIN; the plain one is cut at net.core.[rw]mem_max without an error.
Result<void> set_buffer(Kernel& kernel, int fd, int forced_name, int name, int bytes) {
  if (kernel.setsockopt(fd, SOL_SOCKET, forced_name, bytes) >= 0) return {};
  const int failed = kernel.setsockopt(fd, SOL_SOCKET, name, bytes);
  if (failed < 0) return Error{"SO_RCVBUF/SO_SNDBUF", -failed, ""};
  return {};
}

/// Everything that is set on the sockets after bind(); the same again does no harm.
Result<OffloadSet> configure(Kernel& kernel, int fd, OffloadSet disabled) {
  // DF, as flannel's datagrams have it by the kernel's default: without DO, a UDP_SEGMENT send goes out without.
  if (const int failed = kernel.setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO); failed < 0) {
    return Error{"IP_MTU_DISCOVER", -failed, ""};
  }
  const Result<void> receive = set_buffer(kernel, fd, SO_RCVBUFFORCE, SO_RCVBUF, kReceiveBufferBytes);
  if (!receive) return receive.error();
  const Result<void> send = set_buffer(kernel, fd, SO_SNDBUFFORCE, SO_SNDBUF, kSendBufferBytes);
  if (!send) return send.error();
  OffloadSet offloads;
  offloads.set(Offload::kUdpSegment,
               !disabled.has(Offload::kUdpSegment) && kernel.getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT) >= 0);
  const bool wants_gro = !disabled.has(Offload::kUdpGro);
  const bool has_gro = kernel.setsockopt(fd, IPPROTO_UDP, UDP_GRO, wants_gro ? 1 : 0) >= 0;
  offloads.set(Offload::kUdpGro, wants_gro && has_gro);
  offloads.set(Offload::kBatch, !disabled.has(Offload::kBatch));
  return offloads;
}

Result<void> configure_all(Kernel& kernel, OffloadSet disabled, UdpSockets& sockets) {
  for (const UniqueFd& socket : sockets.sockets) {
    const Result<OffloadSet> offloads = configure(kernel, socket.get(), disabled);
    if (!offloads) return offloads.error();
    sockets.offloads = offloads.value();
  }
  return {};
}

}  // namespace

sockaddr_in to_sockaddr(Endpoint endpoint) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = swap_be16(endpoint.port);
  address.sin_addr.s_addr = swap_be32(endpoint.address);
  return address;
}

Result<UdpSockets> open_udp(Kernel& kernel, const UdpOptions& options) {
  UdpSockets result;
  if (options.sockets > 1) {
    Result<UniqueFd> probe = open_socket(kernel);
    if (!probe) return probe.error();
    const Result<void> bound = bind_to(kernel, probe.value().get(), options.bind);
    if (!bound) return bound.error();
  }
  for (unsigned i = 0; i < options.sockets; i++) {
    Result<UniqueFd> socket = open_socket(kernel);
    if (!socket) return socket.error();
    if (options.sockets > 1) {
      const int failed = kernel.setsockopt(socket.value().get(), SOL_SOCKET, SO_REUSEPORT, 1);
      if (failed < 0) return Error{"SO_REUSEPORT", -failed, ""};
    }
    const Result<void> bound = bind_to(kernel, socket.value().get(), options.bind);
    if (!bound) return bound.error();
    result.sockets.push_back(std::move(socket).value());
  }
  const Result<void> configured = configure_all(kernel, options.disabled, result);
  if (!configured) return configured.error();
  return result;
}

Result<UdpSockets> adopt_udp(Kernel& kernel, const UdpOptions& options, std::vector<UniqueFd> sockets) {
  const Error misfit{kBindStep, EADDRNOTAVAIL, "the inherited sockets do not fit"};
  if (sockets.size() != options.sockets) return misfit;
  const sockaddr_in wanted = to_sockaddr(options.bind);
  for (const UniqueFd& socket : sockets) {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    if (kernel.getsockopt(socket.get(), SOL_SOCKET, SO_TYPE) != SOCK_DGRAM ||
        kernel.getsockname(socket.get(), as_sockaddr(&address), &size) < 0 || address.sin_family != AF_INET ||
        address.sin_port != wanted.sin_port || address.sin_addr.s_addr != wanted.sin_addr.s_addr) {
      return misfit;
    }
  }
  UdpSockets result;
  result.sockets = std::move(sockets);
  const Result<void> configured = configure_all(kernel, options.disabled, result);
  if (!configured) return configured.error();
  return result;
}

Result<void> record_cpus(Kernel& kernel, const UdpSockets& sockets, const PacketCpus& cpus) {
  constexpr int32_t kWhole = INT32_MAX;  // bytes of a datagram to keep
  size_t worker = 0;
  for (const UniqueFd& socket : sockets.sockets) {
    const auto record = cpus.record(worker++);
    std::vector<bpf_insn> program(record.begin(), record.end());
    program.push_back(instruction(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, kWhole));
    program.push_back(instruction(BPF_JMP | BPF_EXIT, 0, 0, 0));
    const UniqueFd loaded(load_socket_filter(kernel, program));
    if (!loaded) return Error{"BPF_PROG_LOAD", -loaded.get(), ""};
    const int failed = kernel.setsockopt(socket.get(), SOL_SOCKET, SO_ATTACH_BPF, loaded.get());
    if (failed < 0) return Error{"SO_ATTACH_BPF", -failed, ""};
  }
  return {};
}

Result<PathMtuProbe> PathMtuProbe::open(Kernel& kernel, uint32_t bind_address) {
  Result<UniqueFd> socket = open_socket(kernel);
  if (!socket) return socket.error();
  const int fd = socket.value().get();
  const Result<void> bound = bind_to(kernel, fd, {bind_address, 0});
  if (!bound) return bound.error();
  // Nobody reads this socket: keep the kernel from storing what strangers send to it.
  if (const int failed = kernel.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, 1); failed < 0) {
    return Error{"SO_RCVBUF", -failed, ""};
  }
  return PathMtuProbe(std::move(socket).value());
}

uint16_t PathMtuProbe::path_mtu(Kernel& kernel, uint32_t address) const {
  constexpr uint16_t kDiscardPort = 9;  // any will do: nothing is sent
  sockaddr_in peer = to_sockaddr({address, kDiscardPort});
  if (kernel.connect(fd_.get(), as_sockaddr(&peer), sizeof peer) < 0) return 0;
  const int mtu = kernel.getsockopt(fd_.get(), IPPROTO_IP, IP_MTU);
  return mtu > 0 && mtu <= 65535 ? static_cast<uint16_t>(mtu) : uint16_t{0};
}

void allow_fragmentation(Kernel& kernel, int socket, bool is_allowed) {
  // Cannot fail on a UDP socket: both values are as old as the option (Linux 2.2).
  (void)kernel.setsockopt(socket, IPPROTO_IP, IP_MTU_DISCOVER, is_allowed ? IP_PMTUDISC_DONT : IP_PMTUDISC_DO);
}

}  // namespace tsflannel
