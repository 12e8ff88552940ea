#include "attachment.h"

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "../base/bytes.h"

namespace tsflannel {
namespace {

// include/uapi/linux/bpf.h, Linux 6.6; here for older headers.
constexpr uint32_t kTcxIngress = 46;
constexpr uint32_t kTcxEgress = 47;
constexpr uint32_t kBefore = 1U << 3;  // BPF_F_BEFORE: without another program, before all
constexpr uint32_t kLinkTypeXdp = 6;
constexpr uint32_t kLinkTypeTcx = 11;

/// The head of `struct bpf_link_info`, as it is for both types.
struct LinkInfo {
  uint32_t type;
  uint32_t id;
  uint32_t program;
  uint32_t unused;
  uint32_t device;       // 0 when it is gone
  uint32_t attach_type;  // of TCX
};

// The place of ours among filters: the first priority, which several bpf filters share, the newest of them first.
constexpr uint32_t kPriority = 1;
constexpr std::string_view kFilterName = "tsflannel";

constexpr const char* operation_of(AttachPoint point) {
  return point == AttachPoint::kXdp ? "attach XDP program" : "attach tc program";
}

/// Negative errno of a failed call, else a link's descriptor.
int create_link(Kernel& kernel, const UniqueFd& program, Attachment::Place place) {
  bpf_attr attributes{};
  attributes.link_create.prog_fd = static_cast<uint32_t>(program.get());
  attributes.link_create.target_ifindex = place.device;
  switch (place.point) {
    case AttachPoint::kXdp:
      attributes.link_create.attach_type = BPF_XDP;
      attributes.link_create.flags = XDP_FLAGS_DRV_MODE;
      break;
    case AttachPoint::kIngress:
      attributes.link_create.attach_type = kTcxIngress;
      attributes.link_create.flags = kBefore;
      break;
    case AttachPoint::kEgress:
      attributes.link_create.attach_type = kTcxEgress;
      attributes.link_create.flags = kBefore;
      break;
  }
  return kernel.bpf(BPF_LINK_CREATE, &attributes, sizeof attributes);
}

/// A request to the kernel about what hangs on a device.
class TcRequest {
 public:
  TcRequest(uint16_t type, uint16_t flags, const tcmsg& about) {
    nlmsghdr header{};
    header.nlmsg_type = type;
    header.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
    put(&header, sizeof header);
    put(&about, sizeof about);
  }

  void attribute(uint16_t type, const void* data, size_t size) {
    const rtattr header{.rta_len = static_cast<uint16_t>(RTA_LENGTH(size)), .rta_type = type};
    put(&header, sizeof header);
    put(data, size);
    size_ = NLMSG_ALIGN(size_);
  }

  void text(uint16_t type, std::string_view value) { attribute(type, std::string(value).c_str(), value.size() + 1); }

  /// Writes attributes of `fill` inside of one.
  template <typename Fill>
  void nested(uint16_t type, Fill&& fill) {
    const size_t start = size_;
    attribute(type, nullptr, 0);
    fill();
    const auto length = static_cast<uint16_t>(size_ - start);
    std::memcpy(data_.data() + start, &length, sizeof length);
  }

  /// 0, or the negative errno that the kernel answers.
  int ask(Kernel& kernel) {
    const auto length = static_cast<uint32_t>(size_);
    std::memcpy(data_.data(), &length, sizeof length);
    const UniqueFd socket(kernel.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    if (!socket) return -EPROTONOSUPPORT;
    iovec part{data_.data(), size_};
    mmsghdr message{};
    message.msg_hdr.msg_iov = &part;
    message.msg_hdr.msg_iovlen = 1;
    if (const int sent = kernel.sendmmsg(socket.get(), &message, 1); sent < 0) return sent;
    // Route netlink answers before sending returns.
    std::array<uint8_t, 4096> answer{};
    part = {answer.data(), answer.size()};
    if (const int received = kernel.recvmmsg(socket.get(), &message, 1); received < 0) return received;
    nlmsghdr header{};
    int code = 0;
    if (message.msg_len < sizeof header + sizeof code) return -EBADMSG;
    std::memcpy(&header, answer.data(), sizeof header);
    std::memcpy(&code, answer.data() + sizeof header, sizeof code);
    return header.nlmsg_type == NLMSG_ERROR ? code : -EBADMSG;
  }

 private:
  void put(const void* data, size_t size) {
    if (size > 0) std::memcpy(data_.data() + size_, data, size);
    size_ += size;
  }

  std::array<uint8_t, 256> data_{};
  size_t size_ = 0;
};

tcmsg filter_at(Attachment::Place place, uint32_t handle) {
  tcmsg filter{};
  filter.tcm_ifindex = static_cast<int>(place.device);
  filter.tcm_handle = handle;
  filter.tcm_parent = TC_H_MAKE(TC_H_CLSACT, place.point == AttachPoint::kEgress ? TC_H_MIN_EGRESS : TC_H_MIN_INGRESS);
  filter.tcm_info = kPriority << 16 | swap_be16(ETH_P_ALL);
  return filter;
}

/// What the kernel says of a link; of no device if that is none.
LinkInfo info_of(Kernel& kernel, const UniqueFd& link) {
  LinkInfo info{};
  bpf_attr attributes{};
  attributes.info.bpf_fd = static_cast<uint32_t>(link.get());
  attributes.info.info_len = sizeof info;
  attributes.info.info = reinterpret_cast<uint64_t>(&info);
  if (kernel.bpf(BPF_OBJ_GET_INFO_BY_FD, &attributes, sizeof attributes) < 0) return {};
  return info;
}

int put_filter(Kernel& kernel, const UniqueFd& program, Attachment::Place place, uint32_t handle) {
  tcmsg about{};
  about.tcm_ifindex = static_cast<int>(place.device);
  about.tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0);
  about.tcm_parent = TC_H_CLSACT;
  TcRequest clsact(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, about);
  clsact.text(TCA_KIND, "clsact");
  // It is there when others have filters, too.
  if (const int failed = clsact.ask(kernel); failed < 0 && failed != -EEXIST) return failed;
  TcRequest filter(RTM_NEWTFILTER, NLM_F_CREATE, filter_at(place, handle));
  filter.text(TCA_KIND, "bpf");
  filter.nested(TCA_OPTIONS, [&filter, &program] {
    const int number = program.get();
    const uint32_t flags = TCA_BPF_FLAG_ACT_DIRECT;
    filter.attribute(TCA_BPF_FD, &number, sizeof number);
    filter.text(TCA_BPF_NAME, kFilterName);
    filter.attribute(TCA_BPF_FLAGS, &flags, sizeof flags);
  });
  return filter.ask(kernel);
}

}  // namespace

Result<Attachment> Attachment::attach(Kernel& kernel, const UniqueFd& program, Place place, uint32_t handle) {
  const std::string detail = "device " + std::to_string(place.device);
  const int link = create_link(kernel, program, place);
  if (link >= 0) return Attachment(kernel, UniqueFd(link), place, handle);
  // EINVAL is what a kernel says that knows no TCX.
  if (place.point == AttachPoint::kXdp || link != -EINVAL) return Error{operation_of(place.point), -link, detail};
  const int failed = put_filter(kernel, program, place, handle);
  if (failed < 0) return Error{operation_of(place.point), -failed, detail};
  return Attachment(kernel, UniqueFd(), place, handle);
}

std::optional<Attachment> Attachment::adopt(Kernel& kernel, UniqueFd link) {
  const LinkInfo info = info_of(kernel, link);
  if (info.device == 0) return std::nullopt;
  Place place{.device = info.device};
  if (info.type == kLinkTypeTcx && info.attach_type == kTcxIngress) {
    place.point = AttachPoint::kIngress;
  } else if (info.type == kLinkTypeTcx && info.attach_type == kTcxEgress) {
    place.point = AttachPoint::kEgress;
  } else if (info.type != kLinkTypeXdp) {
    return std::nullopt;
  }
  return Attachment(kernel, std::move(link), place, 0);
}

Result<void> Attachment::exchange(const UniqueFd& program) {
  int failed = 0;
  if (is_link()) {
    bpf_attr attributes{};
    attributes.link_update.link_fd = static_cast<uint32_t>(link_.get());
    attributes.link_update.new_prog_fd = static_cast<uint32_t>(program.get());
    failed = kernel_->bpf(BPF_LINK_UPDATE, &attributes, sizeof attributes);
  } else {
    failed = put_filter(*kernel_, program, place_, handle_);
  }
  if (failed < 0) return Error{"exchange program", -failed, "device " + std::to_string(place_.device)};
  return {};
}

bool Attachment::is_in_place() const {
  return !is_link() || info_of(*kernel_, link_).device != 0;
}

Result<void> Attachment::detach() {
  int failed = 0;
  if (is_link()) {
    bpf_attr attributes{};
    attributes.link_detach.link_fd = static_cast<uint32_t>(link_.get());
    failed = kernel_->bpf(BPF_LINK_DETACH, &attributes, sizeof attributes);
    link_.reset();
  } else {
    TcRequest filter(RTM_DELTFILTER, 0, filter_at(place_, handle_));
    filter.text(TCA_KIND, "bpf");
    failed = filter.ask(*kernel_);
  }
  // With the device, or by somebody's hand, it is gone already.
  if (failed < 0 && failed != -ENOENT && failed != -ENODEV && failed != -ENOLINK && failed != -EINVAL) {
    return Error{"remove program", -failed, "device " + std::to_string(place_.device)};
  }
  return {};
}

}  // namespace tsflannel
