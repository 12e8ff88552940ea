#include "../../../native/core/worker/tunnel.h"

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

#include "path_rig.h"

namespace tsflannel::testing {
namespace {

/// The host's kernel with pairs of Unix sockets in place of the TUN and the UDP socket: real descriptors, real polling,
/// real threads, but no privilege and no network.
class PairKernel final : public Kernel {
 public:
  /// Ends that the test uses, by worker.
  std::vector<UniqueFd> far_tun;
  std::vector<UniqueFd> far_socket;
  std::atomic<uint32_t> outer_source{outer_of(0)};
  std::atomic<bool> is_tun_dead{false};
  int refused_socket = -1;  ///< the how-manieth socket() fails; -1: none

  ssize_t read(int fd, void* buffer, size_t size) override {
    if (is_tun_dead) return -EBADFD;
    return host_.read(fd, buffer, size);
  }
  ssize_t writev(int fd, const iovec* parts, int count) override { return host_.writev(fd, parts, count); }

  int recvmmsg(int fd, mmsghdr* messages, unsigned count) override {
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
    std::vector<mmsghdr> bare(messages, messages + count);
    for (mmsghdr& each : bare) {
      each.msg_hdr.msg_name = nullptr;
      each.msg_hdr.msg_namelen = 0;
      each.msg_hdr.msg_control = nullptr;
      each.msg_hdr.msg_controllen = 0;
    }
    return host_.sendmmsg(fd, bare.data(), count);
  }

  int poll(pollfd* fds, unsigned count, int timeout_ms) override { return host_.poll(fds, count, timeout_ms); }

  int open(const char*, int) override { return pair(far_tun); }
  int socket(int, int, int) override {
    if (refused_socket-- == 0) return -EMFILE;
    return pair(far_socket);
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

 private:
  static int pair(std::vector<UniqueFd>& far) {
    std::array<int, 2> fds{};
    if (::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()) != 0) return -errno;
    far.emplace_back(fds[1]);
    return fds[0];
  }

  Kernel& host_ = host_kernel();
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

bool wait_until(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

TunnelState state_with(std::initializer_list<unsigned> peers) {
  TunnelState state{.routes = {}, .icmp_source = kOwnTun, .mtu = kMtu, .verify_source = VerifySource::kOuter};
  for (const unsigned n : peers) state.routes.push_back({inner_of(n) & 0xffffff00, 24, outer_of(n)});
  return state;
}

struct Rig {
  PairKernel kernel;
  LockedSink sink;
  std::unique_ptr<Tunnel> tunnel;

  explicit Rig(unsigned workers = 1) {
    TunnelConfig config{.device = "flannel0", .bind = {ipv4(192, 0, 2, 1), kPort}, .workers = workers};
    tunnel = std::move(Tunnel::open(kernel, sink, config, state_with({0, 1}))).value();
  }

  /// The far end of the socket that forwards; with several workers a probe socket was opened before them.
  int socket_end(unsigned worker = 0) { return kernel.far_socket[worker].get(); }
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
};

Bytes outbound(unsigned n) {
  return make_udp({.source = kLocal, .destination = inner_of(n)}, {}, pattern(100));
}

TEST("tables are swapped while packets flow in both directions, and none is lost") {
  Rig rig;
  const Bytes in = make_udp({.source = inner_of(0), .destination = kLocal}, {}, pattern(100));
  uint64_t sent_out = 0;
  uint64_t sent_in = 0;
  for (int round = 0; round < 300; round++) {
    for (int i = 0; i < 8; i++) {
      sent_out += rig.to_tun(outbound(0)) ? 1 : 0;
      sent_in += rig.to_socket(in) ? 1 : 0;
    }
    // Peer 0 stays, the others come and go.
    const TunnelState state = round % 2 == 0 ? state_with({0, 1, 2}) : state_with({3, 0});
    CHECK(rig.tunnel->update(state).ok());
    Rig::drain(rig.socket_end());
    Rig::drain(rig.tun_end());
  }
  const bool is_done = wait_until([&] {
    Rig::drain(rig.socket_end());
    Rig::drain(rig.tun_end());
    const TunnelCounters counters = rig.tunnel->counters();
    return counters.tx_packets == sent_out && counters.rx_packets == sent_in;
  });
  CHECK(is_done);
  CHECK(wait_until([&] { return rig.tunnel->generation() == 301; }));
  std::vector<OuterCounters> all = rig.tunnel->peer_counters();
  const OuterCounters* peer = rig.counters_of(all, outer_of(0));
  CHECK(peer != nullptr && peer->tx_packets == sent_out && peer->rx_packets == sent_in);
  for (const uint64_t drops : rig.tunnel->counters().drops) CHECK_EQ(drops, 0);
}

TEST("an idle worker adopts a new table at once") {
  Rig rig(3);
  CHECK(wait_until([&] { return rig.tunnel->generation() == 1; }));
  const Result<uint64_t> generation = rig.tunnel->update(state_with({2}));
  CHECK(generation.ok());
  CHECK_EQ(generation.value(), 2);
  CHECK(wait_until([&] { return rig.tunnel->generation() == 2; }));
}

TEST("a table that cannot be built changes nothing") {
  Rig rig;
  TunnelState bad = state_with({2});
  bad.routes[0].length = 8;  // host bits are set
  CHECK(!rig.tunnel->update(bad).ok());
  bad = state_with({2});
  bad.mtu = 70000;
  const Result<uint64_t> refused = rig.tunnel->update(bad);
  CHECK(!refused.ok());
  CHECK(rig.to_tun(outbound(1)));
  CHECK(wait_until([&] { return rig.tunnel->counters().tx_packets == 1; }));
}

TEST("counters of a peer live as long as its address is in the table, and begin at zero when it comes back") {
  Rig rig;
  CHECK(rig.to_tun(outbound(1)));
  CHECK(wait_until([&] { return rig.tunnel->counters().tx_packets == 1; }));
  // The same address with another subnet.
  TunnelState moved = state_with({0});
  moved.routes.push_back({inner_of(3) & 0xffffff00, 24, outer_of(1)});
  CHECK(rig.tunnel->update(moved).ok());
  std::vector<OuterCounters> all = rig.tunnel->peer_counters();
  const OuterCounters* peer = rig.counters_of(all, outer_of(1));
  CHECK(peer != nullptr && peer->tx_packets == 1);

  // Many addresses come and go: slots are used again, so memory stays bounded, and nobody inherits foreign totals.
  for (uint32_t i = 0; i < 200; i++) {
    TunnelState state = state_with({0});
    state.routes.push_back({inner_of(3) & 0xffffff00, 24, ipv4(198, 51, 100, static_cast<uint8_t>(i))});
    const Result<uint64_t> generation = rig.tunnel->update(state);
    CHECK(generation.ok());
    CHECK(wait_until([&] { return rig.tunnel->generation() == generation.value(); }));
    CHECK(rig.to_tun(outbound(3)));
    const bool is_counted = wait_until([&] {
      all = rig.tunnel->peer_counters();
      const OuterCounters* each = rig.counters_of(all, ipv4(198, 51, 100, static_cast<uint8_t>(i)));
      Rig::drain(rig.socket_end());
      return each != nullptr && each->tx_packets == 1;
    });
    CHECK(is_counted);
    if (!passing()) return;
  }
  CHECK(rig.tunnel->update(state_with({0, 1})).ok());
  all = rig.tunnel->peer_counters();
  CHECK_EQ(all.size(), 2);
  peer = rig.counters_of(all, outer_of(1));
  CHECK(peer != nullptr && peer->tx_packets == 0);
}

TEST("every worker serves its own queue") {
  Rig rig(4);
  CHECK_EQ(rig.tunnel->worker_count(), 4);
  for (unsigned worker = 0; worker < 4; worker++) CHECK(rig.to_tun(outbound(0), worker));
  CHECK(wait_until([&] { return rig.tunnel->counters().tx_packets == 4; }));
  CHECK_EQ(rig.tunnel->counters().worker_cpu_seconds.size(), 4);
}

TEST("a dead device is told once, and the tunnel can still be updated, read and closed") {
  Rig rig(2);
  rig.kernel.is_tun_dead = true;
  for (unsigned worker = 0; worker < 2; worker++) rig.to_tun(outbound(0), worker);
  CHECK(wait_until([&] { return !rig.sink.events().empty(); }));
  CHECK(rig.tunnel->update(state_with({1})).ok());
  CHECK(wait_until([&] { return rig.tunnel->generation() == 2; }));
  rig.tunnel->close();
  CHECK_EQ(rig.sink.events().size(), 1);
  CHECK(rig.sink.events()[0].type == TunnelEvent::Type::kFailed && rig.sink.events()[0].code == EBADFD);
}

TEST("closing while packets flow ends the threads and the descriptors, twice too, and keeps the counters") {
  for (int round = 0; round < 20; round++) {
    Rig rig(2);
    std::atomic<bool> is_done{false};
    std::thread traffic([&] {
      while (!is_done) {
        rig.to_tun(outbound(0));
        Rig::drain(rig.socket_end());
      }
    });
    CHECK(wait_until([&] { return rig.tunnel->counters().tx_packets > 10; }));
    const std::vector<int> fds = rig.tunnel->tun_descriptors();
    rig.tunnel->close();
    rig.tunnel->close();
    is_done = true;
    traffic.join();
    for (const int fd : fds) CHECK(::fcntl(fd, F_GETFD) < 0);
    CHECK(rig.tunnel->tun_descriptors().empty());
    CHECK(rig.tunnel->counters().tx_packets > 10);
  }
}

TEST("a failure half way through opening leaves no descriptor behind") {
  const auto count_open = [] {
    size_t count = 0;
    for (int fd = 0; fd < 1024; fd++) count += ::fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
    return count;
  };
  const size_t before = count_open();
  int opened = 0;
  for (int failing = 0; failing < 12; failing++) {
    PairKernel kernel;
    LockedSink sink;
    kernel.refused_socket = failing;
    TunnelConfig config{.device = "flannel0", .bind = {ipv4(192, 0, 2, 1), kPort}, .workers = 3};
    const Result<std::unique_ptr<Tunnel>> tunnel = Tunnel::open(kernel, sink, config, state_with({0}));
    opened += tunnel.ok() ? 1 : 0;
    if (!tunnel.ok()) CHECK_EQ(tunnel.error().code, EMFILE);
  }
  // Sockets: one probe, three to forward, three to ask for the path MTU.
  CHECK_EQ(opened, 12 - 7);
  CHECK_EQ(count_open(), before);
}

TEST("the number of workers follows the CPUs") {
  CHECK_EQ(choose_workers(1), 1);
  CHECK_EQ(choose_workers(3), 1);
  CHECK_EQ(choose_workers(4), 2);
  CHECK_EQ(choose_workers(8), 4);
  CHECK_EQ(choose_workers(64), 4);
}

}  // namespace
}  // namespace tsflannel::testing
