#include "tun_device.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "../offload/vnet_header.h"
#include "flow_steering.h"

// Older headers than the kernel we run on: include/uapi/linux/if_tun.h, Linux 6.2.
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

namespace tsflannel {
namespace {

constexpr const char* kDeviceNode = "/dev/net/tun";
constexpr unsigned kUsoFlags = TUN_F_USO4 | TUN_F_USO6;  // the kernel takes both or none
constexpr unsigned kTsoFlags = TUN_F_TSO4 | TUN_F_TSO6;

ifreq request_for(const std::string& name, unsigned flags) {
  ifreq request{};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_flags = static_cast<short>(flags);
  return request;
}

int set_offload(Kernel& kernel, int fd, unsigned flags) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr): TUNSETOFFLOAD takes its argument by value.
  return kernel.ioctl(fd, TUNSETOFFLOAD, reinterpret_cast<void*>(uintptr_t{flags}));
}

/// Negotiates what queue `fd` hands over unsegmented and adds it to `offloads`.
Result<void> negotiate(Kernel& kernel, int fd, OffloadSet disabled, OffloadSet& offloads) {
  int header_size = kVnetHeaderSize;
  if (const int failed = kernel.ioctl(fd, TUNSETVNETHDRSZ, &header_size); failed < 0) {
    return Error{"TUNSETVNETHDRSZ", -failed, ""};
  }
  offloads.add(Offload::kVnetHdr);
  offloads.set(Offload::kTcpMerge, !disabled.has(Offload::kTcpMerge));

  // Whether the kernel knows GSO_UDP_L4 on a TUN at all decides about merging, even where reading it is not wanted.
  const bool has_uso = set_offload(kernel, fd, TUN_F_CSUM | kTsoFlags | TUN_F_TSO_ECN | kUsoFlags) >= 0;
  offloads.set(Offload::kUdpMerge, has_uso && !disabled.has(Offload::kUdpMerge));

  const unsigned uso = has_uso && !disabled.has(Offload::kUso) ? kUsoFlags : 0;
  const unsigned tso = disabled.has(Offload::kTso) ? 0 : kTsoFlags;
  const unsigned ecn = tso == 0 ? 0 : unsigned{TUN_F_TSO_ECN};
  const std::array<unsigned, 4> ladder = {TUN_F_CSUM | tso | ecn | uso, TUN_F_CSUM | tso, TUN_F_CSUM, 0};
  for (const unsigned flags : ladder) {
    const int failed = set_offload(kernel, fd, flags);
    if (failed >= 0) {
      offloads.set(Offload::kTso, (flags & TUN_F_TSO4) != 0);
      offloads.set(Offload::kUso, (flags & TUN_F_USO4) != 0);
      return {};
    }
    if (failed != -EINVAL || flags == 0) return Error{"TUNSETOFFLOAD", -failed, ""};
  }
  return {};
}

Result<void> negotiate_all(Kernel& kernel, const TunOptions& options, TunDevice& device) {
  for (const UniqueFd& queue : device.queues) {
    const Result<void> done = negotiate(kernel, queue.get(), options.disabled, device.offloads);
    if (!done) return done.error();
  }
  return {};
}

Result<UniqueFd> open_node(Kernel& kernel) {
  const int fd = kernel.open(kDeviceNode, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return Error{kOpenTunStep, -fd, kDeviceNode};
  return UniqueFd(fd);
}

/// Makes `node` one more queue of the device, which the first one creates.
Result<void> attach(Kernel& kernel, UniqueFd node, unsigned flags, TunDevice& device) {
  ifreq request = request_for(device.name, flags);
  if (const int failed = kernel.ioctl(node.get(), TUNSETIFF, &request); failed < 0) {
    return Error{kCreateDeviceStep, -failed, device.name};
  }
  device.name.assign(request.ifr_name, strnlen(request.ifr_name, IFNAMSIZ));
  device.queues.push_back(std::move(node));
  return {};
}

/// How many queues the device behind `queue` must have. Without eBPF (CAP_BPF missing in a container, or an old kernel)
/// flows are spread by peer only, and over several queues of one worker they would lose their order.
size_t queues_for(Kernel& kernel, int queue, unsigned workers) {
  return steer_flows(kernel, queue, workers).ok() ? workers * size_t{kLanesPerWorker} : workers;
}

}  // namespace

Result<TunDevice> open_tun(Kernel& kernel, const TunOptions& options) {
  if (options.name.empty() || options.name.size() >= IFNAMSIZ) {
    return Error{kCreateDeviceStep, EINVAL, options.name};
  }
  TunDevice device;
  device.name = options.name;
  Result<UniqueFd> first = open_node(kernel);
  if (!first) return first.error();
  unsigned features = 0;
  const bool are_known = kernel.ioctl(first.value().get(), TUNGETFEATURES, &features) >= 0;
  const bool has_vnet_header =
      !options.disabled.has(Offload::kVnetHdr) && (!are_known || (features & IFF_VNET_HDR) != 0);
  const unsigned flags = IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE | (has_vnet_header ? IFF_VNET_HDR : 0U);
  // A second daemon must not become one more queue of the first one's device.
  const Result<void> created = attach(kernel, std::move(first).value(), flags | IFF_TUN_EXCL, device);
  if (!created) return created.error();
  const size_t count = queues_for(kernel, device.queues.front().get(), options.workers);
  while (device.queues.size() < count) {
    Result<UniqueFd> node = open_node(kernel);
    if (!node) return node.error();
    const Result<void> attached = attach(kernel, std::move(node).value(), flags, device);
    if (!attached) return attached.error();
  }
  if (has_vnet_header) {
    const Result<void> done = negotiate_all(kernel, options, device);
    if (!done) return done.error();
  }
  return device;
}

Result<TunDevice> adopt_tun(Kernel& kernel, const TunOptions& options, std::vector<UniqueFd> queues) {
  const bool wants_vnet_header = !options.disabled.has(Offload::kVnetHdr);
  const Error misfit{kCreateDeviceStep, ENODEV, "the inherited descriptors do not fit"};
  if (queues.empty() || queues.size() != queues_for(kernel, queues.front().get(), options.workers)) return misfit;
  TunDevice device;
  for (const UniqueFd& queue : queues) {
    ifreq request{};
    if (kernel.ioctl(queue.get(), TUNGETIFF, &request) < 0) return misfit;
    const auto flags = static_cast<unsigned>(static_cast<unsigned short>(request.ifr_flags));
    const std::string name(request.ifr_name, strnlen(request.ifr_name, IFNAMSIZ));
    const bool is_alike = (flags & IFF_TUN) != 0 && (flags & IFF_NO_PI) != 0 && name == options.name &&
                          ((flags & IFF_VNET_HDR) != 0) == wants_vnet_header;
    if (!is_alike || ::fcntl(queue.get(), F_SETFL, O_NONBLOCK) < 0) return misfit;
    device.name = name;
  }
  device.queues = std::move(queues);
  if (wants_vnet_header) {
    const Result<void> done = negotiate_all(kernel, options, device);
    if (!done) return done.error();
  }
  return device;
}

}  // namespace tsflannel
