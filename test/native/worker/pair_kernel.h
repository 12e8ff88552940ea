// A tunnel with real threads on a kernel that has neither a TUN nor a network.
#pragma once

#include <fcntl.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "../../../native/core/worker/tunnel.h"
#include "path_rig.h"

namespace tsflannel::testing {

/// The host's kernel with pairs of Unix sockets in place of the TUN and the UDP socket: real descriptors, real polling,
/// real threads, but no privilege and no network.
class PairKernel final : public Kernel {
 public:
  /// Ends that the test uses, by worker.
  std::vector<UniqueFd> far_tun;
  std::vector<UniqueFd> far_socket;
  std::vector<UniqueFd> far_icmp;  ///< one
  std::atomic<uint32_t> outer_source{outer_of(0)};
  std::atomic<bool> is_tun_dead{false};
  std::atomic<bool> dies_when_full{false};    ///< the socket, for who receives, once it takes no more
  std::atomic<uint64_t> packets_read{0};      ///< from the TUN
  int refused_socket = -1;                    ///< the how-manieth socket() fails; -1: none
  std::atomic<uint32_t> drops_per_socket{0};  ///< what socket_drops() tells
  std::atomic<bool> is_busy{false};           ///< whether the CPU time of a thread passes as the clock does
  std::atomic<int> scheduler{-1};             ///< the latest policy that a thread was given; -1: none

  ssize_t read(int fd, void* buffer, size_t size) override {
    if (is_tun_dead) return -EBADFD;
    const ssize_t length = host_.read(fd, buffer, size);
    if (length > 0) packets_read++;
    return length;
  }
  ssize_t writev(int fd, const iovec* parts, int count) override { return host_.writev(fd, parts, count); }

  int recvmmsg(int fd, mmsghdr* messages, unsigned count) override {
    if (is_socket_deaf_) return -ENOTSOCK;
    std::array<mmsghdr, ReceiveRing::kMessages> bare{};
    for (unsigned i = 0; i < count; i++) {
      bare[i].msg_hdr.msg_iov = messages[i].msg_hdr.msg_iov;
      bare[i].msg_hdr.msg_iovlen = 1;
    }
    const int received = host_.recvmmsg(fd, bare.data(), count);
    for (int i = 0; i < received; i++) {
      messages[i].msg_len = bare[static_cast<size_t>(i)].msg_len;
      messages[i].msg_hdr.msg_controllen = 0;
      messages[i].msg_hdr.msg_flags = 0;
      sockaddr_in source{};
      source.sin_addr.s_addr = htonl(outer_source);
      std::memcpy(messages[i].msg_hdr.msg_name, &source, sizeof source);
    }
    return received;
  }

  int sendmmsg(int fd, mmsghdr* messages, unsigned count) override {
    // No memory of its own: the allocation test counts for all threads.
    std::array<mmsghdr, kMaxEntries> bare{};
    for (unsigned i = 0; i < count; i++) {
      bare[i].msg_hdr.msg_iov = messages[i].msg_hdr.msg_iov;
      bare[i].msg_hdr.msg_iovlen = messages[i].msg_hdr.msg_iovlen;
    }
    const int sent = host_.sendmmsg(fd, bare.data(), count);
    if (sent == -EAGAIN && dies_when_full && !is_socket_deaf_.exchange(true)) {
      // Something to receive, so that the worker finds out before it has waited for long.
      (void)::send(far_socket.front().get(), "", 1, MSG_DONTWAIT);
    }
    return sent;
  }

  int poll(pollfd* fds, unsigned count, int64_t timeout_ns) override { return host_.poll(fds, count, timeout_ns); }

  int open(const char*, int) override { return pair(far_tun); }
  int socket(int, int type, int) override {
    if (refused_socket-- == 0) return -EMFILE;
    return pair((type & SOCK_RAW) == SOCK_RAW ? far_icmp : far_socket);
  }
  int ioctl(int, unsigned long request, void* argument) override {
    // No TSO and no merging: every packet is seen as it is.
    if (request == TUNGETFEATURES) *static_cast<unsigned*>(argument) = IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE;
    return 0;
  }
  int bind(int, const sockaddr*, socklen_t) override { return 0; }
  int connect(int, const sockaddr*, socklen_t) override { return 0; }
  int setsockopt(int, int, int, int) override { return 0; }
  int getsockopt(int, int, int) override { return -ENOPROTOOPT; }
  int getsockname(int, sockaddr*, socklen_t*) override { return 0; }
  int bpf(int, void*, unsigned) override { return -EPERM; }
  int64_t socket_drops(int) override { return drops_per_socket; }
  unsigned current_cpu() override { return host_kernel().current_cpu(); }
  int get_affinity(cpu_set_t& cpus) override { return host_kernel().get_affinity(cpus); }
  int set_affinity(const cpu_set_t& cpus) override { return host_kernel().set_affinity(cpus); }
  int set_scheduler(int policy, int) override {
    scheduler = policy;
    return 0;
  }
  uint64_t thread_cpu_ns() override { return is_busy ? monotonic_ns() : 0; }

 private:
  static int pair(std::vector<UniqueFd>& far) {
    std::array<int, 2> fds{};
    if (::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()) != 0) return -errno;
    far.emplace_back(fds[1]);
    return fds[0];
  }

  Kernel& host_ = host_kernel();
  std::atomic<bool> is_socket_deaf_{false};
};

/// Events from several threads.
class LockedSink final : public EventSink {
 public:
  void on_event(const TunnelEvent& event) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    events_.push_back(event);
  }
  std::vector<TunnelEvent> events() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return events_;
  }

 private:
  std::mutex mutex_;
  std::vector<TunnelEvent> events_;
};

/// Whether it came true within 20 s.
inline bool wait_until(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

/// A table with these peers of path_rig.h.
inline TunnelState state_with(std::initializer_list<unsigned> peers) {
  TunnelState state{.routes = {}, .icmp_source = kOwnTun, .mtu = kMtu, .verify_source = VerifySource::kOuter};
  for (const unsigned n : peers) state.routes.push_back({inner_of(n) & 0xffffff00, 24, outer_of(n)});
  return state;
}

/// A running tunnel to the peers 0 and 1.
class TunnelRig {
 public:
  PairKernel kernel;
  LockedSink sink;
  std::unique_ptr<Tunnel> tunnel;

  explicit TunnelRig(unsigned workers = 1, double realtime_share = kUnlimitedShare)
      : first_socket_(workers > 1 ? 1 : 0) {
    TunnelConfig config{.device = "flannel0",
                        .bind = {ipv4(192, 0, 2, 1), kPort},
                        .workers = workers,
                        .realtime_share = realtime_share};
    tunnel = std::move(Tunnel::open(kernel, sink, config, state_with({0, 1}))).value();
  }

  int socket_end(unsigned worker = 0) { return kernel.far_socket[first_socket_ + worker].get(); }
  int tun_end(unsigned worker = 0) { return kernel.far_tun[worker].get(); }

  bool to_tun(const Bytes& packet, unsigned worker = 0) {
    return ::send(tun_end(worker), packet.data(), packet.size(), MSG_DONTWAIT) > 0;
  }
  bool to_socket(const Bytes& packet) { return ::send(socket_end(), packet.data(), packet.size(), MSG_DONTWAIT) > 0; }
  /// Takes everything that has come out of an end.
  static size_t drain(int fd) {
    std::array<uint8_t, 2048> buffer;
    size_t count = 0;
    while (::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT) > 0) count++;
    return count;
  }
  const OuterCounters* counters_of(std::vector<OuterCounters>& all, uint32_t outer) {
    for (const OuterCounters& each : all) {
      if (each.outer == outer) return &each;
    }
    return nullptr;
  }

 private:
  const unsigned first_socket_;  // of those that forward: with several, one more was bound before, to look for others
};

/// A packet that leaves for peer `n`.
inline Bytes outbound(unsigned n) {
  return make_udp({.source = kLocal, .destination = inner_of(n)}, {}, pattern(100));
}

/// A packet that comes from peer `n`.
inline Bytes inbound_from(unsigned n) {
  return make_udp({.source = inner_of(n), .destination = kLocal}, {}, pattern(100));
}

}  // namespace tsflannel::testing
