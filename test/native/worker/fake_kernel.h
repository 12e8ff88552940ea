// A kernel of the test's making: what it hands over is queued, what it takes is kept, and any call can be made to fail.
#pragma once

#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "../../../native/core/base/kernel.h"
#include "../support/packets.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

namespace tsflannel::testing {

inline constexpr int kTunFd = 1001;
inline constexpr int kSocketFd = 1002;
inline constexpr int kTcpLaneFd = 1003;
inline constexpr int kIcmpFd = 1004;

/// One datagram on the wire.
struct Datagram {
  uint32_t outer = 0;
  uint16_t port = 0;
  bool has_df = true;
  Bytes data;
};

/// What a receive finds: several datagrams when `segment_length` is set (UDP_GRO).
struct Inbound {
  uint32_t outer = 0;
  Bytes data;
  int segment_length = 0;
  int flags = 0;               ///< msg_flags, such as MSG_TRUNC
  int control_type = UDP_GRO;  ///< of the control message, when there is one
};

/// Not for several threads.
class FakeKernel final : public Kernel {
 public:
  // What the kernel hands over.
  std::deque<Bytes> tun_frames;       ///< with vnet header
  std::deque<Bytes> tcp_lane_frames;  ///< of a second lane, for a worker that has one
  std::deque<Inbound> inbound;

  // What it took.
  std::vector<Datagram> sent;
  std::vector<Datagram> answers;  ///< ICMP errors, whole
  std::vector<Bytes> written;     ///< with vnet header
  std::map<std::string, int> options;

  // How often it was asked.
  std::map<std::string, size_t> calls;
  size_t largest_send = 0;  ///< most datagrams of one message

  // How it fails: an errno, or 0 to go on. on_send sees each message, on_write the gathered bytes. on_receive gives the
  // most messages to hand out, or -errno.
  std::function<int(int fd)> on_read;
  std::function<int(unsigned count)> on_receive;
  std::function<int(const mmsghdr& message, size_t datagrams)> on_send;
  std::function<int(const Bytes& frame)> on_write;
  std::function<int()> on_answer;
  std::deque<int> read_errors;  ///< before the frames
  int path_mtu = 1500;
  std::function<int(unsigned long request, void* argument)> on_ioctl;
  std::map<std::string, int> failing;  ///< set-up calls by name, such as "bind" or "SO_REUSEPORT"
  int next_fd = -1;                    ///< given by open() and socket(); negative: none, so that nothing is closed

  ssize_t read(int fd, void* buffer, size_t size) override {
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

  ssize_t writev(int fd, const iovec* parts, int count) override {
    CHECK_EQ(fd, kTunFd);
    calls["writev"]++;
    const Bytes frame = gather({parts, static_cast<size_t>(count)});
    if (const int code = on_write ? on_write(frame) : 0; code != 0) return -code;
    written.push_back(frame);
    return static_cast<ssize_t>(frame.size());
  }

  int recvmmsg(int fd, mmsghdr* messages, unsigned count) override {
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

  int sendmmsg(int fd, mmsghdr* messages, unsigned count) override {
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

  int poll(pollfd*, unsigned, int64_t) override {
    calls["poll"]++;
    return 0;
  }

  int open(const char*, int) override { return result_of("open", next_fd); }
  int ioctl(int, unsigned long request, void* argument) override { return on_ioctl ? -on_ioctl(request, argument) : 0; }
  int socket(int, int, int) override { return result_of("socket", next_fd); }
  int bind(int, const sockaddr*, socklen_t) override { return result_of("bind", 0); }
  int connect(int, const sockaddr*, socklen_t) override { return result_of("connect", 0); }
  int getsockname(int, sockaddr*, socklen_t*) override { return result_of("getsockname", 0); }

  int bpf(int, void*, unsigned) override { return result_of("bpf", next_fd); }

  int64_t socket_drops(int) override { return 0; }
  int set_scheduler(int, int) override { return -EPERM; }
  uint64_t thread_cpu_ns() override { return 0; }

  int setsockopt(int, int level, int name, int value) override {
    const std::string key = option_name(level, name);
    const int result = result_of(key, 0);
    if (result == 0) options[key] = value;
    return result;
  }

  int getsockopt(int, int level, int name) override {
    const std::string key = option_name(level, name);
    if (key == "IP_MTU") return path_mtu;
    return result_of(key + "?", 0);
  }

  /// Bytes of a message that the kernel would send as one datagram, before it is split.
  static Bytes payload(const mmsghdr& message) { return gather({message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen}); }

  /// Cuts a message as udp_sendmsg() does, and checks what it would refuse.
  std::vector<Datagram> split(const mmsghdr& message) {
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

 private:
  int answer(const mmsghdr* messages, unsigned count) {
    CHECK_EQ(count, 1);
    if (const int code = on_answer ? on_answer() : 0; code != 0) return -code;
    const auto* to = static_cast<const sockaddr_in*>(messages->msg_hdr.msg_name);
    answers.push_back({ntohl(to->sin_addr.s_addr), ntohs(to->sin_port), true, payload(*messages)});
    return 1;
  }

  int result_of(const std::string& call, int success) {
    calls[call]++;
    const auto found = failing.find(call);
    return found == failing.end() ? success : -found->second;
  }

  static std::string option_name(int level, int name) {
    if (level == IPPROTO_UDP) return name == UDP_SEGMENT ? "UDP_SEGMENT" : "UDP_GRO";
    if (level == IPPROTO_IP) return name == IP_MTU ? "IP_MTU" : "IP_MTU_DISCOVER";
    switch (name) {
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

  static void fill(mmsghdr& message, const Inbound& from) {
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
};

}  // namespace tsflannel::testing
