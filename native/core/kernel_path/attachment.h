// Programs at devices.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include "../base/kernel.h"
#include "../base/result.h"
#include "../base/unique_fd.h"

namespace tsflannel {

/// Where a program sees the packets of a device.
enum class AttachPoint : uint8_t {
  kXdp,  ///< in the driver; never by the kernel's stand-in for drivers that cannot, which comes after GRO
  kIngress,
  kEgress,
};

/// A program at a device, beside those of others: none of theirs is ever replaced or removed.
///
/// XDP and, from Linux 6.6 on, tc programs hang on a link, which goes with its last descriptor. On older kernels a tc
/// program is a filter below clsact, recognized by its handle: it stays when this process ends, and attaching again
/// takes its place. At a tc hook ours comes first, since what others decide there is about what they know.
///
/// Threads: one at a time.
class Attachment {
 public:
  /// Where a program hangs.
  struct Place {
    uint32_t device = 0;
    AttachPoint point = AttachPoint::kXdp;

    bool operator==(const Place&) const = default;
  };

  /// EBUSY: another XDP program is there; EOPNOTSUPP: the driver has no XDP; EINVAL: its MTU is too large for XDP, or a
  /// filter of another kind has the place of ours; EPERM: no CAP_BPF or CAP_NET_ADMIN.
  /// @param handle of a filter: not 0, the same after a restart, another one for another tunnel on the same device
  [[nodiscard]] static Result<Attachment> attach(Kernel& kernel, const UniqueFd& program, Place place, uint32_t handle);

  /// Takes over a link that another process left; nothing if that is none, or hangs at no device any more.
  [[nodiscard]] static std::optional<Attachment> adopt(Kernel& kernel, UniqueFd link);

  Attachment(Attachment&& other) noexcept = default;
  Attachment& operator=(Attachment&& other) noexcept = default;
  /// Lets a link go, which removes the program unless others have the link, too; a filter stays, see detach().
  ~Attachment() = default;

  /// Puts another program in the place of this one: each packet meets one of the two.
  [[nodiscard]] Result<void> exchange(const UniqueFd& program);

  /// Removes the program, whoever else has the link. Nothing else may be called afterwards.
  [[nodiscard]] Result<void> detach();

  /// False when the program is at its device no more: that is gone, even if another one has its name and index by now,
  /// or somebody has removed the program. Of a filter nothing is known: true.
  [[nodiscard]] bool is_in_place() const;

  [[nodiscard]] const Place& place() const { return place_; }
  /// Of the link; negative if the program is a filter.
  [[nodiscard]] int descriptor() const { return link_.get(); }
  /// Whether the program hangs on a link; else it is a filter.
  [[nodiscard]] bool is_link() const { return link_.valid(); }

 private:
  Attachment(Kernel& kernel, UniqueFd link, Place place, uint32_t handle)
      : kernel_(&kernel), link_(std::move(link)), place_(place), handle_(handle) {}

  Kernel* kernel_;
  UniqueFd link_;
  Place place_;
  uint32_t handle_;
};

}  // namespace tsflannel
