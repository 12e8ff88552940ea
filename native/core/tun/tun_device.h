// Opening TUN devices and negotiating their offloads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../base/kernel.h"
#include "../base/offload.h"
#include "../base/result.h"
#include "../base/unique_fd.h"

namespace tsflannel {

/// What the TUN must look like.
struct TunOptions {
  /// Name of the device, or a template such as "flannel%d", of which the kernel takes the first free number.
  std::string name;
  /// Threads that will read from it, 1…kMaxTunnelWorkers.
  unsigned workers = 1;
  /// Offloads that must not be used.
  OffloadSet disabled = {};
};

/// An open TUN device; it disappears with the last of its descriptors.
struct TunDevice {
  std::string name;
  /// Non-blocking; the same number for each worker, its own in a row: kLanesPerWorker, or one where the kernel does not
  /// let a program choose among them.
  std::vector<UniqueFd> queues;
  /// Of kVnetHdr, kTso, kUso, kTcpMerge and kUdpMerge: what is in use.
  OffloadSet offloads;
};

// Operations in the errors of this file that tunnelError() in src/dataplane/tunnel-errors.ts knows.
inline constexpr const char* kOpenTunStep = "open-tun";
inline constexpr const char* kCreateDeviceStep = "create-device";

/// Creates the device, down and without address.
///
/// Where the kernel lacks an offload, what is left of them is negotiated: USO (6.2) is given up first, then TSO, then
/// checksums; without IFF_VNET_HDR every read and write is one plain packet.
///
/// Errors: `open-tun` if /dev/net/tun cannot be opened, `create-device` if TUNSETIFF is refused, else the ioctl's name.
[[nodiscard]] Result<TunDevice> open_tun(Kernel& kernel, const TunOptions& options);

/// Takes over descriptors of a device that another process of the same service opened. They are closed if they do not
/// fit `options` in name, number of queues or vnet header; then the result is ENODEV.
[[nodiscard]] Result<TunDevice> adopt_tun(Kernel& kernel, const TunOptions& options, std::vector<UniqueFd> queues);

}  // namespace tsflannel
