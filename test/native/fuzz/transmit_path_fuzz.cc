// Input: settings, then frames of the TUN, then what the kernel answers to each call. The whole way from the TUN to the
// socket runs on a kernel that refuses whatever the input says. What must hold:
//
//   - Every datagram handed to the kernel, accepted or refused, is one that the slow reference makes of a frame, to the
//     right host, and is accepted at most once, in the order of the reads for each host.
//   - What was sent and what was dropped add up to what was read; each reason counts what it should, by the reference
//     before the socket and by the kernel's last word on a packet behind it. So do they when the tunnel dies, of
//     whatever cause.
//   - Every ICMP error is one that is due, byte by byte, and leaves by the raw socket once, or is counted as held back
//   or
//     refused, which is no drop. Fragmentation needed does not take the place of the others, nor they its own.
//   - Segmenting is off exactly from when the kernel refused a message of whose datagrams it then took each, until it
//   is
//     due to be tried again.
//   - A turn offers no more new datagrams than it may.
#include <algorithm>
#include <array>
#include <map>
#include <unordered_map>
#include <utility>

#include "../support/fuzz_input.h"
#include "../support/hostile_packets.h"
#include "../support/slow_forwarding.h"
#include "../worker/path_rig.h"
#include "environment.h"

using namespace tsflannel;
using namespace tsflannel::testing;

namespace {

/// What the kernel says to one datagram, and what that makes of it in the end.
struct Expected {
  uint32_t outer = 0;
  size_t order = 0;
  bool is_sent = false;
  int last_word = 0;  // errno of the last attempt that was about this packet alone, or about the entry as a whole
  bool is_offered = false;
  size_t suspicion = 0;  // of the refused message it was part of; 0: none
};

/// A message that the kernel refused, maybe because of UDP_SEGMENT: so it is if all of its datagrams pass singly.
struct Suspicion {
  size_t left = 0;
  bool is_cleared = false;
};

// Datagrams that one turn may queue; the next one may first have to send all of them.
constexpr size_t kLongestTurn = 192;
// So many errors, and fragmentation needed, are sent at once before the limit of either begins.
constexpr size_t kBurst = 50;
constexpr size_t kFragmentationNeededBurst = 500;

bool is_about_segmentation(int code) {
  return code == EIO || code == EINVAL || code == EMSGSIZE || code == EOPNOTSUPP;
}

bool is_fragmentation_needed(const Bytes& answer) {
  return answer[20] == 3 && answer[21] == 4;
}

class TransmitModel {
 public:
  TransmitModel(FuzzInput& input, PathRig& rig)
      : input_(input), rig_(rig), segmenting_(rig.health.offloads().has(Offload::kUdpSegment)) {
    for (unsigned n = 0; n < PathRig::kPeers; n++) {
      state_.routes.push_back({inner_of(n) & 0xffffff00, 24, outer_of(n)});
    }
    state_.icmp_source = kOwnTun;
    state_.mtu = kMtu;
    const uint8_t settings = input.byte();
    narrow_path_ = (settings & 1) != 0 ? 28 + 20 + input.word() % kMtu : 1500;
    has_old_path_mtu_errno_ = (settings & 2) != 0;
    cannot_checksum_ = (settings & 4) != 0;
    has_trouble_ = (settings & 8) != 0;
    rig.kernel.path_mtu = (settings & 16) != 0 ? -ENOTCONN : narrow_path_;
  }

  /// A frame for the TUN; none if one like it was there before, since packets are told apart by their bytes.
  void offer() {
    const auto n = static_cast<unsigned>(input_.below(PathRig::kPeers + 2));
    const uint32_t destination = n < PathRig::kPeers    ? inner_of(n)
                                 : n == PathRig::kPeers ? ipv4(10, 5, 200, 1)
                                                        : ipv4(224, 0, 0, 9);
    const uint32_t source = input_.one_in(16) ? ipv4(input_.byte(), 0, 0, 1) : kLocal;
    const uint8_t kind = input_.byte();
    const bool is_large = (kind & 7) == 7;
    const size_t most = is_large ? 65535 - 120 : (kind & 3) != 0 ? 5000 : kMtu;
    Bytes packet = hostile_packet(input_, {source, destination, serial_++}, most);
    if (packet.size() > 65535) packet.resize(65535);
    VnetHeader vnet;
    if ((kind & 0x18) != 0 && packet.size() > 20) {
      const bool is_tcp = packet[9] == 6;
      vnet.gso_type = is_tcp ? kGsoTcpV4 : kGsoUdpL4;
      vnet.flags = (kind & 0x20) != 0 ? 0 : kVnetNeedsChecksum;
      vnet.gso_size = static_cast<uint16_t>((kind & 0x40) != 0 ? input_.word() % 1500 : 1400);
      // More segments than this would only make the target slow.
      vnet.gso_size = std::max<uint16_t>(vnet.gso_size, static_cast<uint16_t>(packet.size() / 400));
    } else if ((kind & 0x80) != 0 && packet.size() > 28) {
      vnet.flags = kVnetNeedsChecksum;
      vnet.csum_start = static_cast<uint16_t>((packet[0] & 15) * 4);
      vnet.csum_offset = packet[9] == 6 ? 16 : 6;
      if (packet[0] == 0x45 && packet[9] == 17 && packet.size() > 30 && input_.one_in(4)) {
        // The one sum that UDP must not write as it is.
        put16(packet, 28, 0);
        put16(packet, 28, static_cast<uint16_t>(0xffff - slow_sum(std::span(packet).subspan(20))));
      }
    }
    if (input_.one_in(16)) {  // a vnet header that lies
      vnet.flags = input_.byte();
      vnet.gso_type = input_.byte();
      vnet.gso_size = static_cast<uint16_t>(input_.word() % 3000);
      if (vnet.gso_size != 0)
        vnet.gso_size = std::max<uint16_t>(vnet.gso_size, static_cast<uint16_t>(packet.size() / 400));
      vnet.csum_start = input_.word() % 100;
      vnet.csum_offset = input_.byte();
    }
    Bytes frame = with_vnet(vnet, packet);
    if (input_.one_in(64)) frame.resize(1 + input_.below(kVnetHeaderSize));
    SlowTransmit fate = slow_transmit(state_, frame);
    for (const Bytes& each : fate.packets) {
      if (expected_.contains(key(each))) return;
    }
    for (const Bytes& each : fate.packets) expected_.emplace(key(each), Expected{.outer = fate.outer, .order = 0});
    auto& lane = rig_.lanes.size() > 1 && packet.size() > 9 && packet[9] == 6 ? rig_.kernel.tcp_lane_frames
                                                                              : rig_.kernel.tun_frames;
    auto& fates = &lane == &rig_.kernel.tun_frames ? fates_ : tcp_fates_;
    lane.push_back(std::move(frame));
    fates.push_back(std::move(fate));
  }

  /// The kernel's side, for as long as the rig runs.
  void play() {
    FakeKernel& kernel = rig_.kernel;
    kernel.on_read = [this](int fd) { return on_read(fd); };
    kernel.on_send = [this](const mmsghdr& message, size_t) { return on_send(message); };
    kernel.on_answer = [this] { return on_answer(); };
    // A turn without progress while nothing waits is the end; the rest of a super-packet waits where nobody sees it.
    for (bool has_progress = true; has_progress || !kernel.tun_frames.empty() || !kernel.tcp_lane_frames.empty() ||
                                   rig_.sender.batch().size() > 0;) {
      pass_time();
      offered_in_turn_ = 0;
      may_offer_ = kLongestTurn * (rig_.sender.batch().size() > 0 ? 2 : 1);
      has_progress = rig_.transmit.run();
      // The other direction may die as well, while packets wait here.
      if (trouble() == 254) rig_.context.fail("receive from the socket", ENOTSOCK);
      if (!rig_.context.has_failed) continue;
      rig_.transmit.run();
      return;
    }
  }

  void check() {
    std::array<uint64_t, kDropReasonCount> drops = drops_;
    uint64_t sent = 0;
    uint64_t bytes = 0;
    uint64_t lost = 0;
    std::map<uint32_t, std::pair<uint64_t, uint64_t>> by_peer;
    for (const auto& [data, each] : expected_) {
      if (each.order == 0) continue;  // never read
      if (each.is_sent) {
        sent++;
        bytes += data.size();
        by_peer[each.outer].first++;
        by_peer[each.outer].second += data.size();
        continue;
      }
      lost++;
      DropReason reason = DropReason::kSendError;
      if (each.last_word == EMSGSIZE) {
        reason = DropReason::kOversize;
        const uint32_t known = rig_.kernel.path_mtu > 28 ? static_cast<uint32_t>(rig_.kernel.path_mtu) : 576;
        due({data.begin(), data.end()}, static_cast<uint16_t>(known - 28));
      } else if (each.last_word == EAGAIN || each.last_word == 0) {
        // Those behind a blocked one in its entry go with it, unasked.
        reason = DropReason::kSendBlocked;
      }
      drops[static_cast<size_t>(reason)]++;
    }
    const WorkerCounters& counters = *rig_.counters;
    require_equal(counters.tx_packets.get(), sent, "packets sent");
    require_equal(counters.tx_bytes.get(), bytes, "bytes sent");
    for (unsigned n = 0; n < PathRig::kPeers; n++) {
      require_equal(rig_.peers->at(n).tx_packets.get(), by_peer[outer_of(n)].first, "packets of a peer");
      require_equal(rig_.peers->at(n).tx_bytes.get(), by_peer[outer_of(n)].second, "bytes of a peer");
    }
    require_equal(counters.tun_reads.get(), rig_.kernel.calls["read"], "reads");
    require_equal(counters.socket_sends.get(), rig_.kernel.calls["sendmmsg"], "sends");
    require_equal(rig_.kernel.calls["writev"], 0, "writes to the TUN");
    uint64_t answered = 0;
    for (const Counter& each : counters.icmp_sent) answered += each.get();
    require_equal(answered, rig_.kernel.answers.size(), "ICMP errors sent");
    require_equal(counters.icmp_failed.get(), refused_answers_, "ICMP errors refused");
    if (rig_.context.has_failed) {
      // Which packets waited when the descriptor died is the tunnel's affair; that all of them are counted is not.
      require_equal(sent + rig_.all_drops(), sent + lost + rejected_,
                    "packets sent and dropped by a tunnel that failed");
      return;
    }
    for (size_t i = 0; i < kDropReasonCount; i++) {
      require_equal(rig_.drops(static_cast<DropReason>(i)), drops[i], "drops as " + std::string(kDropReasonNames[i]));
    }
    check_answers();
    require_equal(rig_.health.downgrades(Offload::kUdpSegment), segmenting_.downgrades(), "downgrades of segmenting");
    require_equal(rig_.health.trials(Offload::kUdpSegment), segmenting_.trials(), "trials of segmenting");
    require(rig_.health.offloads().has(Offload::kUdpSegment) == segmenting_.is_on(), "segmenting is on or off wrongly");
  }

 private:
  static std::string key(const Bytes& packet) { return {packet.begin(), packet.end()}; }

  static void require_equal(uint64_t actual, uint64_t expected, const std::string& what) {
    require(actual == expected, what + ": got " + std::to_string(actual) + ", expected " + std::to_string(expected));
  }

  void check_answers() {
    std::array<size_t, 2> due{};   // others, fragmentation needed
    std::array<size_t, 2> left{};  // of these, not sent
    for (const auto& [answer, count] : due_) due[is_fragmentation_needed({answer.begin(), answer.end()})] += count;
    for (const Datagram& each : rig_.kernel.answers) {
      const auto found = due_.find(key(each.data));
      require(found != due_.end() && found->second > 0, "an ICMP error that nobody asked for: " + hex(each.data));
      require(each.outer == get32(each.data, 16), "an ICMP error to somebody else");
      found->second--;
    }
    for (const auto& [answer, count] : due_) left[is_fragmentation_needed({answer.begin(), answer.end()})] += count;
    require_equal(rig_.counters->icmp_limited.get() + refused_answers_, left[0] + left[1], "ICMP errors held back");
    if (due[0] <= kBurst) require(left[0] <= refused_answers_, "an ICMP error was held back too early");
    if (due[1] <= kFragmentationNeededBurst) {
      require(left[1] <= refused_answers_, "fragmentation needed was held back too early");
    }
  }

  /// Next decision of the input on what goes wrong; mostly nothing.
  uint8_t trouble() { return has_trouble_ ? input_.byte() : 0; }

  /// A little, or minutes; then what the worker does between two turns.
  void pass_time() {
    const uint8_t decision = trouble();
    fake_now_ns += decision == 255 ? 130'000'000'000 : uint64_t{decision} * 100'000;
    rig_.health.try_again(fake_now_ns);
    segmenting_.time_passed(fake_now_ns);
  }

  void due(const Bytes& offender, uint16_t mtu) {
    const std::optional<Bytes> answer = slow_icmp(IcmpError::kFragmentationNeeded, state_, offender, mtu);
    if (answer) due_[key(*answer)]++;
  }

  int on_read(int fd) {
    constexpr std::array<int, 6> kErrors = {EINTR, EIO, EINVAL, ENOMEM, EAGAIN, EBADFD};
    const uint8_t decision = trouble();
    if (decision >= 232) {
      // The death of the device ends a run, so it is rarer than the rest.
      const int code = kErrors[decision == 255 ? 5 : decision % 5];
      if (code != EINTR && code != EAGAIN && code != EBADFD) reject(DropReason::kTunError, 1);
      return code;
    }
    std::deque<SlowTransmit>& fates = fd == kTunFd ? fates_ : tcp_fates_;
    if (fates.empty()) return 0;
    const SlowTransmit fate = std::move(fates.front());
    fates.pop_front();
    if (fate.reason != DropReason::kNone) reject(fate.reason, fate.dropped);
    if (fate.answer) due_[key(*fate.answer)]++;
    for (const Bytes& each : fate.packets) expected_.at(key(each)).order = ++reads_;
    return 0;
  }

  void reject(DropReason reason, size_t packets) {
    drops_[static_cast<size_t>(reason)] += packets;
    rejected_ += packets;
  }

  int on_send(const mmsghdr& message) {
    const std::vector<Datagram> datagrams = rig_.kernel.split(message);
    std::vector<Expected*> packets;
    for (const Datagram& each : datagrams) {
      const auto found = expected_.find(key(each.data));
      require(found != expected_.end(), "a packet that the reference does not know: " + hex(each.data));
      Expected& packet = found->second;
      require(packet.order != 0, "a packet that was not read yet");
      require(!packet.is_sent, "a packet that was sent already");
      require(packet.outer == each.outer && each.port == kPort, "a packet to the wrong host");
      if (!packet.is_offered) offered_in_turn_++;
      packet.is_offered = true;
      packets.push_back(&packet);
    }
    require(offered_in_turn_ <= may_offer_, "a turn without an end");
    const int code = verdict(datagrams);
    const bool is_whole = datagrams.size() > 1;
    require(!is_whole || segmenting_.is_on() || packets.front()->order <= read_before_rest_,
            "segmenting is in use though it rests");
    if (is_whole && is_about_segmentation(code) && code != EMSGSIZE) suspect(packets);
    if (!is_whole) hear(*packets.front(), code);
    const bool has_df = datagrams.front().has_df && (datagrams.front().data[6] & 0x40) != 0;
    for (size_t i = 0; i < packets.size(); i++) {
      Expected& packet = *packets[i];
      if (code == 0) {
        require(packet.order > last_sent_[packet.outer], "a packet was overtaken");
        last_sent_[packet.outer] = packet.order;
        packet.is_sent = true;
      } else if (code == ENOBUFS || code == EAGAIN) {
        packet.last_word = EAGAIN;
      } else if (is_whole && is_about_segmentation(code)) {
        packet.last_word = 0;  // each is asked about again by itself
      } else if (code != EINTR) {
        // Without inner DF it is sent again so that the outer packet may be fragmented; refused then, too, it is lost.
        packet.last_word = code == EMSGSIZE && !has_df ? EPERM : code;
      }
    }
    return code;
  }

  void suspect(const std::vector<Expected*>& packets) {
    suspicions_.push_back({.left = packets.size()});
    for (Expected* packet : packets) packet->suspicion = suspicions_.size();
  }

  /// What the kernel says to a packet by itself tells what the refused message was about.
  void hear(const Expected& packet, int code) {
    if (packet.suspicion == 0 || code == EINTR || code == EAGAIN || code == ENOBUFS) return;
    Suspicion& suspicion = suspicions_[packet.suspicion - 1];
    if (code != 0) suspicion.is_cleared = true;
    if (code != 0 || --suspicion.left > 0 || suspicion.is_cleared) return;
    if (segmenting_.is_on()) read_before_rest_ = reads_;
    segmenting_.refused(fake_now_ns);
  }

  int verdict(const std::vector<Datagram>& datagrams) {
    const Datagram& first = datagrams.front();
    if (cannot_checksum_ && datagrams.size() > 1) return EIO;
    const bool is_narrow = first.outer == outer_of(0);
    if (is_narrow && first.has_df && std::cmp_greater(first.data.size() + 28, narrow_path_)) {
      return has_old_path_mtu_errno_ && datagrams.size() > 1 ? EINVAL : EMSGSIZE;
    }
    constexpr std::array<int, 10> kErrors = {EINTR, EAGAIN,       EAGAIN,      ENOBUFS, EPERM,
                                             EIO,   ECONNREFUSED, ENETUNREACH, EINVAL,  EMSGSIZE};
    const uint8_t decision = trouble();
    if (decision < 200) return 0;
    return decision == 255 ? EBADF : kErrors[decision % kErrors.size()];
  }

  int on_answer() {
    constexpr std::array<int, 4> kErrors = {EPERM, EAGAIN, ENETUNREACH, EBADF};
    const uint8_t decision = trouble();
    if (decision < 216) return 0;
    refused_answers_++;
    return kErrors[decision % kErrors.size()];
  }

  FuzzInput& input_;
  PathRig& rig_;
  SlowState state_;
  int narrow_path_ = 0;                  // path MTU of peer 0
  bool has_old_path_mtu_errno_ = false;  // EINVAL for a message with UDP_SEGMENT, as before 6.14
  bool cannot_checksum_ = false;
  bool has_trouble_ = false;
  uint16_t serial_ = 1;
  std::deque<SlowTransmit> fates_;      // of the frames that were not read yet
  std::deque<SlowTransmit> tcp_fates_;  // of those in the lane of TCP
  std::unordered_map<std::string, Expected> expected_;
  std::map<std::string, size_t> due_;  // ICMP errors
  std::map<uint32_t, size_t> last_sent_;
  std::array<uint64_t, kDropReasonCount> drops_{};
  uint64_t rejected_ = 0;
  size_t reads_ = 0;
  size_t offered_in_turn_ = 0;
  size_t may_offer_ = 0;
  SlowOffload segmenting_;
  size_t read_before_rest_ = 0;  // packets read when segmenting was switched off
  std::vector<Suspicion> suspicions_;
  uint64_t refused_answers_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  const uint8_t settings = input.byte();
  OffloadSet offloads = OffloadSet::all();
  if ((settings & 1) != 0) offloads.remove(Offload::kUdpSegment);
  if ((settings & 2) != 0) offloads.remove(Offload::kBatch);
  PathRig rig(VerifySource::kOuter, offloads,
              (settings & 4) != 0 ? std::vector<int>{kTunFd, kTcpLaneFd} : std::vector<int>{kTunFd});
  TransmitModel model(input, rig);
  const size_t frames = 1 + input.below(40);
  for (size_t i = 0; i < frames && !input.empty(); i++) model.offer();
  model.play();
  model.check();
  return 0;
}
