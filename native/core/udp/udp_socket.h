// The UDP socket between this host and its peers.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <vector>

#include "../base/kernel.h"
#include "../base/offload.h"
#include "../base/packet_cpus.h"
#include "../base/result.h"
#include "../base/unique_fd.h"

namespace tsflannel {

/// IPv4 address and port as numbers.
struct Endpoint {
  uint32_t address = 0;
  uint16_t port = 0;
};

[[nodiscard]] sockaddr_in to_sockaddr(Endpoint endpoint);

/// What the sockets must be.
struct UdpOptions {
  Endpoint bind = {};
  /// At least 1; several share the port (SO_REUSEPORT), and the kernel spreads senders over them.
  unsigned sockets = 1;
  /// Offloads that must not be used.
  OffloadSet disabled = {};
};

/// Open sockets, alike in everything.
struct UdpSockets {
  std::vector<UniqueFd> sockets;
  /// Of kUdpSegment, kUdpGro and kBatch: what is in use.
  OffloadSet offloads;
};

/// Operation in the errors of this file that tunnelError() in src/dataplane/tunnel-errors.ts knows.
inline constexpr const char* kBindStep = "bind-socket";

/// Opens sockets that send with DF and receive in bulk.
///
/// A single socket never has SO_REUSEPORT, and several are opened only after one without it could be bound: another
/// program that serves the port is found out by EADDRINUSE instead of losing part of its datagrams to us.
///
/// Errors: `bind-socket`, else the name of the system call or option.
[[nodiscard]] Result<UdpSockets> open_udp(Kernel& kernel, const UdpOptions& options);

/// Records on which CPU the datagrams of each socket come: the first is that of worker 0.
///
/// Errors: the name of the step the kernel refuses; the sockets receive as before then.
[[nodiscard]] Result<void> record_cpus(Kernel& kernel, const UdpSockets& sockets, const PacketCpus& cpus);

/// Takes over sockets that another process of the same service opened. They are closed if they do not fit `options`
/// in number or address; then the result is EADDRNOTAVAIL.
[[nodiscard]] Result<UdpSockets> adopt_udp(Kernel& kernel, const UdpOptions& options, std::vector<UniqueFd> sockets);

/// Asks the kernel for the path MTU it has learned (RFC 1191).
///
/// Only a connected socket can tell it (ip(7), IP_MTU); the sockets of open_udp() are not, so there is one more beside
/// them, which is connected to whatever peer is asked about and carries nothing. One thread.
class PathMtuProbe {
 public:
  [[nodiscard]] static Result<PathMtuProbe> open(Kernel& kernel, uint32_t bind_address);

  /// Bytes of the largest outer IP packet to `address`, or 0 if it is not known.
  [[nodiscard]] uint16_t path_mtu(Kernel& kernel, uint32_t address) const;

  /// After this nothing is known any more.
  void close() { fd_.reset(); }

 private:
  explicit PathMtuProbe(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

/// Lets the next sends be fragmented (true) or sets DF on them again (false).
void allow_fragmentation(Kernel& kernel, int socket, bool is_allowed);

}  // namespace tsflannel
