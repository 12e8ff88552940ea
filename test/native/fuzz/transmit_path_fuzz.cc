// Input: settings, then frames of the TUN, then what the kernel answers to each call. The whole way from the TUN to the
// socket runs on a kernel that refuses whatever the input says. What must hold:
//
//   - Every datagram handed to the kernel, accepted or refused, is one that the slow reference makes of a frame, to the
//     right host, and is accepted at most once, in the order of the reads for each host.
//   - What was sent and what was dropped add up to what was read; each reason counts what it should, by the reference
//     before the socket and by the kernel's last word on a packet behind it.
//   - Every ICMP error is one that is due, byte by byte, and is sent once or counted as held back.
//   - Segmenting is switched off only after a refusal that speaks of it.
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
};

bool is_about_segmentation(int code) {
  return code == EIO || code == EINVAL || code == EMSGSIZE || code == EOPNOTSUPP;
}

class TransmitModel {
 public:
  TransmitModel(FuzzInput& input, PathRig& rig) : input_(input), rig_(rig) {
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
    kernel.on_write = [this](const Bytes& frame) { return on_write(frame); };
    while (!kernel.tun_frames.empty() || !kernel.tcp_lane_frames.empty() || rig_.sender.batch().size() > 0) {
      fake_now_ns += uint64_t{trouble()} * 100'000;
      rig_.transmit.run();
      if (rig_.context.has_failed) return;
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
    require_equal(counters.tun_writes.get(), rig_.kernel.calls["writev"], "writes");
    uint64_t answered = 0;
    for (const Counter& each : counters.icmp_sent) answered += each.get();
    require_equal(answered, rig_.kernel.written.size(), "ICMP errors sent");
    if (rig_.context.has_failed) {
      // Which packets waited when the descriptor died is the tunnel's affair; that all of them are counted is not.
      require_equal(sent + rig_.all_drops(), sent + lost + rejected_ + answer_errors_ + answers_blocked_,
                    "packets sent and dropped by a tunnel that failed");
      return;
    }
    drops[static_cast<size_t>(DropReason::kTunError)] += answer_errors_;
    drops[static_cast<size_t>(DropReason::kTunBlocked)] += answers_blocked_;
    for (size_t i = 0; i < kDropReasonCount; i++) {
      require_equal(rig_.drops(static_cast<DropReason>(i)), drops[i], "drops as " + std::string(kDropReasonNames[i]));
    }
    size_t due_count = 0;
    for (const Bytes& each : rig_.kernel.written) {
      require(vnet_of(each).gso_type == 0 && vnet_of(each).flags == 0, "an ICMP error has vnet flags");
      const auto found = due_.find(key(packet_of(each)));
      require(found != due_.end() && found->second > 0, "an ICMP error that nobody asked for: " + hex(packet_of(each)));
      found->second--;
    }
    for (const auto& [answer, count] : due_) due_count += count;
    require_equal(counters.icmp_limited.get() + answer_errors_ + answers_blocked_, due_count, "ICMP errors held back");
    const bool is_off = rig_.health.downgrades(Offload::kUdpSegment) > 0;
    require(!is_off || was_segmentation_refused_, "segmenting is off though nothing spoke against it");
  }

 private:
  static std::string key(const Bytes& packet) { return {packet.begin(), packet.end()}; }

  static void require_equal(uint64_t actual, uint64_t expected, const std::string& what) {
    require(actual == expected, what + ": got " + std::to_string(actual) + ", expected " + std::to_string(expected));
  }

  /// Next decision of the input on what goes wrong; mostly nothing.
  uint8_t trouble() { return has_trouble_ ? input_.byte() : 0; }

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
      packets.push_back(&packet);
    }
    const int code = verdict(datagrams);
    const bool is_whole = datagrams.size() > 1;
    if (is_whole && is_about_segmentation(code) && code != EMSGSIZE) was_segmentation_refused_ = true;
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

  int on_write(const Bytes&) {
    constexpr std::array<int, 4> kErrors = {EINTR, EAGAIN, EIO, EINVAL};
    const uint8_t decision = trouble();
    const int code = decision < 216 ? 0 : decision == 255 ? EBADFD : kErrors[decision % kErrors.size()];
    // Three attempts, then the answer is dropped.
    if (code == EAGAIN && ++write_attempts_ == 3) {
      answers_blocked_++;
      write_attempts_ = 0;
    } else if (code != EAGAIN && code != EINTR) {
      write_attempts_ = 0;
      if (code != 0) answer_errors_++;
    }
    return code;
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
  bool was_segmentation_refused_ = false;
  int write_attempts_ = 0;
  uint64_t answer_errors_ = 0;
  uint64_t answers_blocked_ = 0;
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
