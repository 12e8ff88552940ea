#include "fake_kernel.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace tsflannel::testing {
namespace {

std::string option_name(int level, int name) {
  if (level == IPPROTO_UDP) return name == UDP_SEGMENT ? "UDP_SEGMENT" : "UDP_GRO";
  if (level == IPPROTO_IP) return name == IP_MTU ? "IP_MTU" : "IP_MTU_DISCOVER";
  switch (name) {
    case SO_ATTACH_BPF:
      return "SO_ATTACH_BPF";
    case SO_RCVBUFFORCE:
      return "SO_RCVBUFFORCE";
    case SO_SNDBUFFORCE:
      return "SO_SNDBUFFORCE";
    case SO_RCVBUF:
      return "SO_RCVBUF";
    case SO_SNDBUF:
      return "SO_SNDBUF";
    case SO_REUSEPORT:
      return "SO_REUSEPORT";
    default:
      return "option " + std::to_string(name);
  }
}

void fill(mmsghdr& message, const Inbound& from) {
  msghdr& header = message.msg_hdr;
  CHECK(from.data.size() <= header.msg_iov[0].iov_len);
  if (!from.data.empty()) std::memcpy(header.msg_iov[0].iov_base, from.data.data(), from.data.size());
  message.msg_len = static_cast<unsigned>(from.data.size());
  auto* source = static_cast<sockaddr_in*>(header.msg_name);
  *source = sockaddr_in{};
  source->sin_family = AF_INET;
  source->sin_addr.s_addr = htonl(from.outer);
  header.msg_flags = from.flags;
  if (from.segment_length == 0) {
    header.msg_controllen = 0;
    return;
  }
  auto* control = static_cast<cmsghdr*>(header.msg_control);
  control->cmsg_level = IPPROTO_UDP;
  control->cmsg_type = from.control_type;
  control->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(control), &from.segment_length, sizeof(int));
  header.msg_controllen = CMSG_SPACE(sizeof(int));
}

}  // namespace

FakeKernel::FakeKernel() = default;
FakeKernel::~FakeKernel() = default;

ssize_t FakeKernel::read(int fd, void* buffer, size_t size) {
  CHECK(fd == kTunFd || fd == kTcpLaneFd);
  calls["read"]++;
  if (!read_errors.empty()) {
    const int code = read_errors.front();
    read_errors.pop_front();
    return -code;
  }
  if (const int code = on_read ? on_read(fd) : 0; code != 0) return -code;
  std::deque<Bytes>& frames = fd == kTunFd ? tun_frames : tcp_lane_frames;
  if (frames.empty()) return -EAGAIN;
  const Bytes frame = std::move(frames.front());
  frames.pop_front();
  CHECK(frame.size() <= size);
  std::memcpy(buffer, frame.data(), frame.size());
  return static_cast<ssize_t>(frame.size());
}

ssize_t FakeKernel::writev(int fd, const iovec* parts, int count) {
  CHECK_EQ(fd, kTunFd);
  calls["writev"]++;
  const Bytes frame = gather({parts, static_cast<size_t>(count)});
  if (const int code = on_write ? on_write(frame) : 0; code != 0) return -code;
  written.push_back(frame);
  return static_cast<ssize_t>(frame.size());
}

int FakeKernel::recvmmsg(int fd, mmsghdr* messages, unsigned count) {
  CHECK_EQ(fd, kSocketFd);
  calls["recvmmsg"]++;
  const int most = on_receive ? on_receive(count) : static_cast<int>(count);
  if (most < 0) return most;
  unsigned received = 0;
  while (std::cmp_less(received, most) && !inbound.empty()) {
    fill(messages[received++], inbound.front());
    inbound.pop_front();
  }
  return received == 0 ? -EAGAIN : static_cast<int>(received);
}

int FakeKernel::sendmmsg(int fd, mmsghdr* messages, unsigned count) {
  if (fd == kIcmpFd) return answer(messages, count);
  CHECK_EQ(fd, kSocketFd);
  calls["sendmmsg"]++;
  for (unsigned i = 0; i < count; i++) {
    std::vector<Datagram> datagrams = split(messages[i]);
    const int code = on_send ? on_send(messages[i], datagrams.size()) : 0;
    // As sendmmsg(2): an error after the first message is reported by the next call.
    if (code != 0) return i == 0 ? -code : static_cast<int>(i);
    largest_send = std::max(largest_send, datagrams.size());
    for (Datagram& each : datagrams) sent.push_back(std::move(each));
  }
  return static_cast<int>(count);
}

int FakeKernel::poll(pollfd*, unsigned, int64_t) {
  calls["poll"]++;
  return 0;
}

int FakeKernel::setsockopt(int, int level, int name, int value) {
  const std::string key = option_name(level, name);
  const int result = result_of(key, 0);
  if (result == 0) options[key] = value;
  return result;
}

int FakeKernel::getsockopt(int, int level, int name) {
  const std::string key = option_name(level, name);
  if (key == "IP_MTU") return path_mtu;
  return result_of((key + "?"), 0);
}

std::vector<Datagram> FakeKernel::split(const mmsghdr& message) const {
  const auto* to = static_cast<const sockaddr_in*>(message.msg_hdr.msg_name);
  const auto discover = options.find("IP_MTU_DISCOVER");
  const bool has_df = discover == options.end() || discover->second == IP_PMTUDISC_DO;
  const Bytes data = payload(message);
  CHECK(data.size() <= 65507);
  CHECK(message.msg_hdr.msg_iovlen <= 1024);
  size_t segment_length = data.size();
  if (message.msg_hdr.msg_controllen > 0) {
    const auto* control = static_cast<const cmsghdr*>(message.msg_hdr.msg_control);
    CHECK_EQ(control->cmsg_type, UDP_SEGMENT);
    uint16_t value = 0;
    std::memcpy(&value, CMSG_DATA(control), sizeof value);
    segment_length = value;
  }
  std::vector<Datagram> datagrams;
  for (size_t at = 0; at < data.size(); at += segment_length) {
    const size_t end = std::min(at + segment_length, data.size());
    datagrams.push_back(
        {ntohl(to->sin_addr.s_addr), ntohs(to->sin_port), has_df,
         Bytes(data.begin() + static_cast<std::ptrdiff_t>(at), data.begin() + static_cast<std::ptrdiff_t>(end))});
  }
  CHECK(datagrams.size() <= 64);
  return datagrams;
}

int FakeKernel::answer(const mmsghdr* messages, unsigned count) {
  CHECK_EQ(count, 1);
  if (const int code = on_answer ? on_answer() : 0; code != 0) return -code;
  const auto* to = static_cast<const sockaddr_in*>(messages->msg_hdr.msg_name);
  answers.push_back({ntohl(to->sin_addr.s_addr), ntohs(to->sin_port), true, payload(*messages)});
  return 1;
}

int FakeKernel::result_of(const std::string& call, int success) {
  calls[call]++;
  const auto found = failing.find(call);
  return found == failing.end() ? success : -found->second;
}

}  // namespace tsflannel::testing
