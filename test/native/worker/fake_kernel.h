// A kernel of the test's making: what it hands over is queued, what it takes is kept, and any call can be made to fail.
#pragma once

#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>

#include <cerrno>
#include <deque>
#include <functional>
#include <map>
#include <string>
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
  std::function<void(const void* attributes)> on_bpf;
  std::map<std::string, int> failing;  ///< set-up calls by name, such as "bind" or "SO_REUSEPORT"
  int next_fd = -1;                    ///< given by open() and socket(); negative: none, so that nothing is closed

  FakeKernel();
  ~FakeKernel() override;

  ssize_t read(int fd, void* buffer, size_t size) override;
  ssize_t writev(int fd, const iovec* parts, int count) override;
  int recvmmsg(int fd, mmsghdr* messages, unsigned count) override;
  int sendmmsg(int fd, mmsghdr* messages, unsigned count) override;
  int poll(pollfd*, unsigned, int64_t) override;

  int open(const char*, int) override { return result_of("open", next_fd); }
  int ioctl(int, unsigned long request, void* argument) override { return on_ioctl ? -on_ioctl(request, argument) : 0; }
  int socket(int, int, int) override { return result_of("socket", next_fd); }
  int bind(int, const sockaddr*, socklen_t) override { return result_of("bind", 0); }
  int connect(int, const sockaddr*, socklen_t) override { return result_of("connect", 0); }
  int getsockname(int, sockaddr*, socklen_t*) override { return result_of("getsockname", 0); }
  int bpf(int, void* attributes, unsigned) override {
    if (on_bpf) on_bpf(attributes);
    return result_of("bpf", next_fd);
  }

  int64_t socket_drops(int) override { return 0; }
  int set_scheduler(int, int) override { return -EPERM; }
  unsigned current_cpu() override { return 0; }
  int get_affinity(cpu_set_t&) override { return -EINVAL; }
  int set_affinity(const cpu_set_t&) override { return -EINVAL; }
  uint64_t thread_cpu_ns() override { return 0; }

  int setsockopt(int, int level, int name, int value) override;
  int getsockopt(int, int level, int name) override;

  /// Bytes of a message that the kernel would send as one datagram, before it is split.
  static Bytes payload(const mmsghdr& message) { return gather({message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen}); }

  /// Cuts a message as udp_sendmsg() does, and checks what it would refuse.
  std::vector<Datagram> split(const mmsghdr& message) const;

 private:
  int answer(const mmsghdr* messages, unsigned count);
  int result_of(const std::string& call, int success);
};

}  // namespace tsflannel::testing
