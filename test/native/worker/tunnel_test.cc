#include "../../../native/core/worker/tunnel.h"

#include <sched.h>

#include "pair_kernel.h"

namespace tsflannel::testing {
namespace {

TEST("tables are swapped while packets flow in both directions, and none is lost") {
  TunnelRig rig;
  const Bytes in = inbound_from(0);
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
    TunnelRig::drain(rig.socket_end());
    TunnelRig::drain(rig.tun_end());
  }
  const bool is_done = wait_until([&] {
    TunnelRig::drain(rig.socket_end());
    TunnelRig::drain(rig.tun_end());
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
  TunnelRig rig(3);
  CHECK(wait_until([&] { return rig.tunnel->generation() == 1; }));
  const Result<uint64_t> generation = rig.tunnel->update(state_with({2}));
  CHECK(generation.ok());
  CHECK_EQ(generation.value(), 2);
  CHECK(wait_until([&] { return rig.tunnel->generation() == 2; }));
}

TEST("a table that cannot be built changes nothing") {
  TunnelRig rig;
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
  TunnelRig rig;
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
      TunnelRig::drain(rig.socket_end());
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
  TunnelRig rig(4);
  CHECK_EQ(rig.tunnel->worker_count(), 4);
  for (unsigned worker = 0; worker < 4; worker++) CHECK(rig.to_tun(outbound(0), worker));
  CHECK(wait_until([&] { return rig.tunnel->counters().tx_packets == 4; }));
  CHECK_EQ(rig.tunnel->counters().worker_cpu_seconds.size(), 4);
}

TEST("while the socket takes nothing, what arrives is still delivered") {
  TunnelRig rig;
  const Bytes in = inbound_from(0);
  // Nobody empties the far end of the socket, so it is soon full, for good.
  const auto blocked = [&rig] { return rig.tunnel->counters().drops[static_cast<size_t>(DropReason::kSendBlocked)]; };
  const auto press = [&rig] {
    while (rig.to_tun(outbound(0))) {
    }
  };
  const bool is_full = wait_until([&] {
    press();
    return blocked() > 0;
  });
  CHECK(is_full);
  const uint64_t before = rig.tunnel->counters().tx_packets;
  size_t sent = 0;
  size_t delivered = 0;
  while (sent < 500 && passing()) {
    press();
    sent += rig.to_socket(in) ? 1 : 0;
    CHECK(wait_until([&] { return (delivered += TunnelRig::drain(rig.tun_end())) >= sent; }));
  }
  CHECK_EQ(delivered, 500);
  CHECK_EQ(rig.tunnel->counters().tx_packets, before);
}

TEST("a dead device is told once, and the tunnel can still be updated, read and closed") {
  TunnelRig rig(2);
  rig.kernel.is_tun_dead = true;
  for (unsigned worker = 0; worker < 2; worker++) rig.to_tun(outbound(0), worker);
  CHECK(wait_until([&] { return !rig.sink.events().empty(); }));
  CHECK(rig.tunnel->update(state_with({1})).ok());
  CHECK(wait_until([&] { return rig.tunnel->generation() == 2; }));
  rig.tunnel->close();
  CHECK_EQ(rig.sink.events().size(), 1);
  CHECK(rig.sink.events()[0].type == TunnelEvent::Type::kFailed && rig.sink.events()[0].code == EBADFD);
}

TEST("packets that wait for the socket when the way from it dies are counted") {
  TunnelRig rig;
  const auto drops = [&rig](DropReason reason) { return rig.tunnel->counters().drops[static_cast<size_t>(reason)]; };
  rig.kernel.dies_when_full = true;
  const bool has_failed = wait_until([&] {
    rig.to_tun(outbound(0));
    return !rig.sink.events().empty();
  });
  CHECK(has_failed);
  const bool is_counted = wait_until(
      [&] { return rig.tunnel->counters().tx_packets + drops(DropReason::kSendError) == rig.kernel.packets_read; });
  CHECK(is_counted);
  CHECK(drops(DropReason::kSendError) > 0);
}

TEST("closing while packets flow ends the threads and the descriptors, twice too, and keeps the counters") {
  for (int round = 0; round < 20; round++) {
    TunnelRig rig(2);
    std::atomic<bool> is_done{false};
    std::thread traffic([&] {
      while (!is_done) {
        rig.to_tun(outbound(0));
        TunnelRig::drain(rig.socket_end());
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
  // Sockets: one probe, three to forward, one for ICMP, three to ask for the path MTU.
  CHECK_EQ(opened, 12 - 8);
  CHECK_EQ(count_open(), before);
}

TEST("what the kernel discards at the sockets is counted from the opening on, over a wrap, and kept after the end") {
  TunnelRig rig(3);
  const auto overflow = [&rig] {
    return rig.tunnel->counters().drops[static_cast<size_t>(DropReason::kReceiveOverflow)];
  };
  CHECK_EQ(overflow(), 0);
  rig.kernel.drops_per_socket = 5;
  CHECK_EQ(overflow(), 3 * 5);
  rig.kernel.drops_per_socket = UINT32_MAX;
  CHECK_EQ(overflow(), 3 * uint64_t{UINT32_MAX});
  rig.kernel.drops_per_socket = 6;
  CHECK_EQ(overflow(), 3 * (uint64_t{UINT32_MAX} + 7));
  rig.kernel.drops_per_socket = 9;
  rig.tunnel->close();
  rig.kernel.drops_per_socket = 100;
  CHECK_EQ(overflow(), 3 * (uint64_t{UINT32_MAX} + 10));
}

TEST("a socket that was taken over has lost nothing yet") {
  PairKernel kernel;
  LockedSink sink;
  kernel.drops_per_socket = 1000;
  TunnelConfig config{.device = "flannel0", .bind = {ipv4(192, 0, 2, 1), kPort}, .workers = 1};
  const auto tunnel = std::move(Tunnel::open(kernel, sink, config, state_with({0}))).value();
  CHECK_EQ(tunnel->counters().drops[static_cast<size_t>(DropReason::kReceiveOverflow)], 0);
}

TEST("sources of this host follow the latest state") {
  TunnelRig rig;
  const auto spoofed = [&rig] { return rig.tunnel->counters().drops[static_cast<size_t>(DropReason::kSourceSpoofed)]; };
  TunnelState state = state_with({0});
  state.own = {{inner_of(0) & 0xffffff00, 24}};
  CHECK(rig.tunnel->update(state).ok());
  CHECK(wait_until([&] { return rig.tunnel->generation() == 2; }));
  CHECK(rig.to_socket(inbound_from(0)));
  CHECK(wait_until([&] { return spoofed() == 1; }));
  state.own = {{inner_of(0), 31}};
  CHECK(rig.tunnel->update(state).ok());
  CHECK(wait_until([&] { return rig.tunnel->generation() == 3; }));
  CHECK(rig.to_socket(inbound_from(0)));
  CHECK(wait_until([&] { return spoofed() == 2; }));
  state.own = {{inner_of(0) ^ 1, 32}};
  CHECK(rig.tunnel->update(state).ok());
  CHECK(wait_until([&] { return rig.tunnel->generation() == 4; }));
  CHECK(rig.to_socket(inbound_from(0)));
  CHECK(wait_until([&] { return rig.tunnel->counters().rx_packets == 1; }));
}

TEST("a worker at full load gives up real-time scheduling where the kernel would stop it, and takes it up again") {
  if (std::thread::hardware_concurrency() < 2) return;  // without a CPU for others it is never real-time
  for (const double share : {0.95, kUnlimitedShare}) {
    TunnelRig rig(1, share);
    CHECK(wait_until([&] { return rig.kernel.scheduler == SCHED_RR; }));
    // Each packet is at least a turn.
    const auto exchange_for = [&rig](std::chrono::milliseconds time, const std::function<bool()>& is_done) {
      const auto end = std::chrono::steady_clock::now() + time;
      while (!is_done() && std::chrono::steady_clock::now() < end) {
        rig.to_tun(outbound(0));
        TunnelRig::drain(rig.socket_end());
        std::this_thread::yield();
      }
      return is_done();
    };
    rig.kernel.is_busy = true;
    const auto has_left = [&rig] { return rig.kernel.scheduler == SCHED_OTHER; };
    const bool is_limited = share < kUnlimitedShare;
    CHECK_EQ(exchange_for(std::chrono::milliseconds(is_limited ? 20000 : 500), has_left), is_limited);
    if (!is_limited) continue;
    rig.kernel.is_busy = false;
    CHECK(exchange_for(std::chrono::milliseconds(20000), [&rig] { return rig.kernel.scheduler == SCHED_RR; }));
  }
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
