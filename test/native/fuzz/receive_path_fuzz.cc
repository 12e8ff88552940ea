// Input: settings, then what arrives at the socket, then what the kernel answers to each call. The whole way from the
// socket to the TUN runs on a kernel that refuses whatever the input says. What must hold:
//
//   - Every frame offered to the TUN, taken or refused, stands for packets that the slow reference lets pass, one hop
//     further and otherwise as they came; each is taken at most once, in the order of its flow.
//   - A merged frame is what the kernel demands, and nothing with a wrong checksum is part of one.
//   - What was written and what was dropped add up to what arrived; each reason counts what it should, by the reference
//     before the TUN and by the kernel's last word on a packet behind it.
//   - Merging is off exactly from when the kernel refused a merged frame until it is due to be tried again.
//   - A turn asks for no more once it has enough.
#include <algorithm>
#include <array>
#include <map>
#include <unordered_map>

#include "../support/coalescer_model.h"
#include "../support/fuzz_input.h"
#include "../support/hostile_packets.h"
#include "../support/slow_forwarding.h"
#include "../worker/path_rig.h"
#include "environment.h"

using namespace tsflannel;
using namespace tsflannel::testing;

namespace {

struct Expected {
  Bytes packet;
  size_t order = 0;
  bool is_written = false;
  int last_word = 0;  // errno of the last attempt that was not about merging
};

/// Where the next segment of a peer's stream continues.
struct Stream {
  uint32_t sequence = 1000;
  uint16_t id = 1;
};

// Datagrams with which a turn has enough.
constexpr size_t kLongestTurn = 512;

class ReceiveModel {
 public:
  ReceiveModel(FuzzInput& input, PathRig& rig, VerifySource verify) : input_(input), rig_(rig) {
    for (unsigned n = 0; n < PathRig::kPeers; n++) {
      state_.routes.push_back({inner_of(n) & 0xffffff00, 24, outer_of(n)});
    }
    state_.own = {{kOwnTun, 24}, {kOwnUnderlay, 32}};
    state_.mtu = kMtu;
    state_.verify = verify;
    has_trouble_ = input.one_in(2);
  }

  /// One message for the socket; none if it holds a packet like one that is there already, since packets are told apart
  /// by their bytes.
  void offer() {
    const auto n = static_cast<unsigned>(input_.below(PathRig::kPeers));
    Inbound inbound{.outer = input_.one_in(16) ? ipv4(203, 0, 113, input_.byte()) : outer_of(n), .data = {}};
    switch (input_.below(4)) {
      case 0:
        hostile(inbound, n);
        break;
      case 1:
        inbound.data = input_.bytes(input_.byte());
        break;
      default:
        stream(inbound, n);
    }
    if (input_.one_in(16) && !inbound.data.empty()) inbound.data[input_.word() % inbound.data.size()] ^= 1;
    if (input_.one_in(32) && !inbound.data.empty()) {
      inbound.data.resize(input_.word() % inbound.data.size());
      inbound.flags = MSG_TRUNC;
    }
    if (input_.one_in(32)) {
      constexpr std::array<int, 6> kSizes = {-1, 1, 19, 20, 65535, 70000};
      inbound.segment_length = kSizes[input_.below(kSizes.size())];
    }
    if (input_.one_in(64)) inbound.control_type = 1;
    if (inbound.data.size() > 65535) inbound.data.resize(65535);
    std::vector<std::string> keys;
    for (const Bytes& each : passing_of(inbound)) keys.push_back(key(each));
    for (const std::string& each : keys) {
      if (!seen_.try_emplace(each).second) return;
    }
    rig_.kernel.inbound.push_back(std::move(inbound));
  }

  /// The kernel's side, for as long as the rig runs.
  void play() {
    FakeKernel& kernel = rig_.kernel;
    kernel.on_receive = [this](unsigned count) { return on_receive(count); };
    kernel.on_write = [this](const Bytes& frame) { return on_write(frame); };
    while (!kernel.inbound.empty() && !rig_.context.has_failed) {
      pass_time();
      taken_in_turn_ = 0;
      rig_.receive.run();
    }
  }

  void check() {
    std::array<uint64_t, kDropReasonCount> drops = drops_;
    uint64_t written = 0;
    uint64_t bytes = 0;
    for (const auto& [name, each] : expected_) {
      if (each.is_written) {
        written++;
        bytes += each.packet.size();
        continue;
      }
      require(each.last_word != 0, "a packet was forgotten: " + hex(each.packet));
      const bool is_blocked = each.last_word == EAGAIN || each.last_word == ENOBUFS;
      drops[static_cast<size_t>(is_blocked ? DropReason::kTunBlocked : DropReason::kTunError)]++;
    }
    const WorkerCounters& counters = *rig_.counters;
    require_equal(counters.rx_packets.get(), written, "packets written");
    require_equal(counters.rx_bytes.get(), bytes, "bytes written");
    require_equal(counters.tun_writes.get(), rig_.kernel.calls["writev"], "writes");
    require_equal(counters.socket_receives.get(), rig_.kernel.calls["recvmmsg"], "receives");
    uint64_t items = 0;
    for (const Counter& each : counters.packets_per_write.buckets) items += each.get();
    require_equal(items, rig_.kernel.written.size(), "writes in the histogram");
    for (unsigned n = 0; n < PathRig::kPeers; n++) {
      require_equal(rig_.peers->at(n).rx_packets.get(), by_peer_[outer_of(n)].first, "packets of a peer");
      require_equal(rig_.peers->at(n).rx_bytes.get(), by_peer_[outer_of(n)].second, "bytes of a peer");
    }
    for (size_t i = 0; i < kDropReasonCount; i++) {
      require_equal(rig_.drops(static_cast<DropReason>(i)), drops[i], "drops as " + std::string(kDropReasonNames[i]));
    }
    for (const auto& [offload, merging] : merging_) {
      require_equal(rig_.health.downgrades(offload), merging.downgrades(), "downgrades of merging");
      require_equal(rig_.health.trials(offload), merging.trials(), "trials of merging");
      require(rig_.health.offloads().has(offload) == merging.is_on(), "merging is on or off wrongly");
    }
  }

 private:
  static std::string key(const Bytes& packet) {
    const Bytes kept = without_meaningless_id(packet);
    return {kept.begin(), kept.end()};
  }

  static void require_equal(uint64_t actual, uint64_t expected, const std::string& what) {
    require(actual == expected, what + ": got " + std::to_string(actual) + ", expected " + std::to_string(expected));
  }

  uint8_t trouble() { return has_trouble_ ? input_.byte() : 0; }

  /// None, or minutes; then what the worker does between two turns.
  void pass_time() {
    if (trouble() == 255) fake_now_ns += 130'000'000'000;
    rig_.health.try_again(fake_now_ns);
    for (auto& [offload, merging] : merging_) {
      merging.time_passed(fake_now_ns);
      may_merge_[offload] = merging.is_on();
    }
  }

  /// Consecutive segments of a peer's TCP or UDP stream, now and then with one that breaks the run.
  void stream(Inbound& inbound, unsigned n) {
    Stream& stream = streams_[n];
    const uint8_t kind = input_.byte();
    const bool is_tcp = (kind & 3) != 3;
    // Now and then more than one batch of the coalescer holds, though no kernel joins so many.
    const bool is_endless = input_.one_in(32);
    const size_t length = is_endless ? 1 : (kind & 4) != 0 ? 1 + input_.word() % 1400 : 40;
    const size_t count = is_endless ? 1500 : (kind & 8) != 0 ? 1 + input_.below(64) : 3;
    uint32_t timestamp = 1;
    for (size_t i = 0; i < count; i++) {
      const Ip ip{.source = inner_of(n),
                  .destination = kLocal,
                  .ttl = 63,
                  .id = stream.id++,
                  .fragment = static_cast<uint16_t>((kind & 16) != 0 ? 0 : 0x4000)};
      const bool is_last = i + 1 == count;
      const size_t payload = is_last && (kind & 32) != 0 ? (length + 1) / 2 : length;
      Tcp tcp{.sequence = stream.sequence};
      if (is_last && (kind & 64) != 0) tcp.flags = 0x18;
      if (!is_endless && input_.one_in(32)) tcp.flags = input_.byte();
      if (!is_endless && input_.one_in(16)) timestamp++;
      if (kind >= 128) tcp.options = timestamps(timestamp, 1);
      const Bytes data = pattern(payload, stream.sequence);
      const Bytes packet = is_tcp ? make_tcp(ip, tcp, data) : make_udp(ip, {.checksum = kind < 128}, data);
      if (i == 0 && count > 1) inbound.segment_length = static_cast<int>(packet.size());
      inbound.data.insert(inbound.data.end(), packet.begin(), packet.end());
      stream.sequence += static_cast<uint32_t>(payload);
    }
  }

  /// Hostile packets, cut wherever the first one ends.
  void hostile(Inbound& inbound, unsigned n) {
    const size_t count = 1 + input_.below(4);
    for (size_t i = 0; i < count; i++) {
      constexpr std::array<uint32_t, 5> kForged = {ipv4(10, 5, 200, 9), ipv4(192, 0, 2, 77), ipv4(127, 0, 0, 1), kLocal,
                                                   kOwnUnderlay};
      const uint32_t source = input_.one_in(8)   ? kForged[input_.below(kForged.size())]
                              : input_.one_in(8) ? inner_of((n + 1) % PathRig::kPeers)
                                                 : inner_of(n);
      const Bytes packet = hostile_packet(input_, {source, kLocal, serial_++}, input_.one_in(8) ? 3000 : 200);
      if (i == 0 && count > 1) inbound.segment_length = static_cast<int>(packet.size());
      inbound.data.insert(inbound.data.end(), packet.begin(), packet.end());
    }
  }

  /// The datagrams that the kernel says a message holds.
  static std::vector<Bytes> datagrams_of(const Inbound& inbound) {
    const bool is_cut = inbound.segment_length > 0 && inbound.control_type == UDP_GRO;
    const size_t step = is_cut ? static_cast<size_t>(inbound.segment_length) : inbound.data.size();
    std::vector<Bytes> datagrams;
    size_t at = 0;
    do {
      const size_t end = std::min(at + step, inbound.data.size());
      datagrams.emplace_back(inbound.data.begin() + static_cast<std::ptrdiff_t>(at),
                             inbound.data.begin() + static_cast<std::ptrdiff_t>(end));
      at = end;
    } while (at < inbound.data.size());
    return datagrams;
  }

  std::vector<Bytes> passing_of(const Inbound& inbound) const {
    std::vector<Bytes> passing;
    for (const Bytes& each : datagrams_of(inbound)) {
      if (slow_receive(state_, inbound.outer, each) == DropReason::kNone) passing.push_back(slow_hop(each));
    }
    return passing;
  }

  int on_receive(unsigned count) {
    require(taken_in_turn_ < kLongestTurn, "a turn without an end");
    constexpr std::array<int, 4> kErrors = {EINTR, ENOMEM, ECONNREFUSED, EAGAIN};
    const uint8_t decision = trouble();
    if (decision == 255) return -ENOTSOCK;
    if (decision >= 232) return -kErrors[decision % kErrors.size()];
    // Fewer than asked for and than there are.
    const size_t most = decision >= 128 ? 1 + decision % 4U : count;
    const size_t taken = std::min({most, size_t{count}, rig_.kernel.inbound.size()});
    for (size_t i = 0; i < taken; i++) take(rig_.kernel.inbound[i]);
    return static_cast<int>(taken);
  }

  /// The message is handed over: this is what has to come of it.
  void take(const Inbound& inbound) {
    for (const Bytes& each : datagrams_of(inbound)) {
      taken_in_turn_++;
      const DropReason reason = slow_receive(state_, inbound.outer, each);
      if (reason != DropReason::kNone) {
        drops_[static_cast<size_t>(reason)]++;
        continue;
      }
      const Bytes packet = slow_hop(each);
      expected_.emplace(key(packet), Expected{.packet = packet, .order = ++arrivals_});
      by_peer_[inbound.outer].first++;
      by_peer_[inbound.outer].second += packet.size();
    }
  }

  int on_write(const Bytes& frame) {
    const VnetHeader vnet = vnet_of(frame);
    const Bytes content = packet_of(frame);
    const bool is_merged = vnet.gso_type != kGsoNone;
    std::vector<Bytes> packets = {content};
    if (is_merged) {
      const std::string fault = fault_of_merged(vnet, content);
      require(fault.empty(), fault);
      std::optional<std::vector<Bytes>> segments = slow_segment(vnet, content);
      require(segments && segments->size() > 1, "a merged frame that cannot be cut");
      packets = std::move(*segments);
    } else {
      require(vnet.flags == 0, "a single packet with vnet flags");
    }
    const int code = verdict(is_merged);
    if (is_merged) {
      const Offload offload = content[9] == 6 ? Offload::kTcpMerge : Offload::kUdpMerge;
      require(may_merge_[offload], "merging is in use though it rests");
      if (code == EINVAL) merging_[offload].refused(fake_now_ns);
    }
    for (const Bytes& each : packets) {
      const auto found = expected_.find(key(each));
      require(found != expected_.end(), "a packet that the reference does not know: " + hex(each));
      Expected& expected = found->second;
      require(!expected.is_written, "a packet that was written already");
      if (is_merged) {
        require(ip_checksum_right(expected.packet), "a packet with a wrong IP checksum was merged");
      } else {
        require(content == expected.packet, "a packet was changed: " + hex(content));
      }
      if (code == 0) {
        size_t& last = last_written_[flow_of(each)];
        require(expected.order > last, "a packet was overtaken in its flow");
        last = expected.order;
        expected.is_written = true;
      } else if (code != EINTR) {
        expected.last_word = is_merged && code == EINVAL ? 0 : code;
      }
    }
    return code;
  }

  int verdict(bool is_merged) {
    const uint8_t decision = trouble();
    if (decision < 200) return 0;
    if (decision == 255) return EBADFD;
    constexpr std::array<int, 6> kErrors = {EINTR, EAGAIN, EAGAIN, ENOBUFS, EIO, EINVAL};
    // A merged frame is refused with EINVAL more often: it is what the replay is there for.
    return is_merged && decision >= 240 ? EINVAL : kErrors[decision % kErrors.size()];
  }

  FuzzInput& input_;
  PathRig& rig_;
  SlowState state_;
  bool has_trouble_ = false;
  uint16_t serial_ = 1;
  size_t arrivals_ = 0;
  std::array<Stream, PathRig::kPeers> streams_;
  std::unordered_map<std::string, bool> seen_;
  std::unordered_map<std::string, Expected> expected_;
  std::map<uint32_t, std::pair<uint64_t, uint64_t>> by_peer_;  // packets and bytes
  std::map<FlowKey, size_t> last_written_;
  std::map<Offload, SlowOffload> merging_ = {{Offload::kTcpMerge, SlowOffload()}, {Offload::kUdpMerge, SlowOffload()}};
  std::map<Offload, bool> may_merge_;  // in this turn
  size_t taken_in_turn_ = 0;
  std::array<uint64_t, kDropReasonCount> drops_{};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  const uint8_t settings = input.byte();
  const auto verify = static_cast<VerifySource>(settings % 3);
  OffloadSet offloads = OffloadSet::all();
  if ((settings & 0xc0) == 0xc0) offloads.remove(Offload::kBatch);
  PathRig rig(verify, offloads);
  ReceiveModel model(input, rig, verify);
  const size_t messages = 1 + input.below(30);
  for (size_t i = 0; i < messages && !input.empty(); i++) model.offer();
  model.play();
  model.check();
  return 0;
}
