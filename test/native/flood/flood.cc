// Sends hostile datagrams to a tunnel's port and says what has to become of each.
//
//   flood TARGET PORT QUEUE DATAGRAMS WINDOW VERIFY DESTINATION SUBNET PEER STRANGER [bare]
//
//   TARGET, PORT  the tunnel's socket, at the address of its underlay
//   QUEUE         /proc/PID/net/udp of a process beside the tunnel: tells how full its socket is
//   DATAGRAMS     how many to send, more or less: the last super-packet is not cut short
//   WINDOW        bytes that may wait in the socket before the flood pauses; 0: never pause, and send no super-packets
//                 and nothing that is fragmented, so that one datagram is one packet to the kernel's counters
//   VERIFY        outer or strict
//   DESTINATION   inner destination; its /24 is the tunnel's own
//   SUBNET        PEER's /24, which most inner sources lie in
//   PEER          outer source that holds a lease; forged if it is not an address of this host
//   STRANGER      outer source that holds none
//   bare          what is no super-packet goes without a checksum every other time, as the kernels of peers send
//
// Prints one line of JSON: {"sent":N,"delivered":N,"drops":{REASON:N,…}}. The datagrams depend on TSFLANNEL_SEED alone.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "../support/fuzz_input.h"
#include "../support/hostile_packets.h"
#include "../support/slow_forwarding.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

using namespace tsflannel;
using namespace tsflannel::testing;

namespace {

constexpr size_t kBatch = 64;
// What a datagram costs the socket beyond its bytes, generously.
constexpr size_t kOverhead = 1280;
constexpr size_t kMaxSegments = 64;
constexpr size_t kMaxUdpPayload = 65507;

[[noreturn]] void fail(const std::string& operation) {
  std::fprintf(stderr, "flood: cannot %s: %s\n", operation.c_str(), std::strerror(errno));
  std::exit(1);
}

uint32_t address_of(const char* text) {
  in_addr address{};
  if (inet_pton(AF_INET, text, &address) != 1) {
    errno = EINVAL;
    fail("read the address " + std::string(text));
  }
  return ntohl(address.s_addr);
}

sockaddr_in endpoint(uint32_t address, uint16_t port) {
  sockaddr_in result{};
  result.sin_family = AF_INET;
  result.sin_addr.s_addr = htonl(address);
  result.sin_port = htons(port);
  return result;
}

/// What is sent at once: one datagram, or a super-packet of several.
struct Message {
  Bytes data;
  uint16_t segment_length = 0;  // 0: one datagram
};

/// A socket that sends from one address, whoever's it is.
class Source {
 public:
  Source(uint32_t address, sockaddr_in target) : address_(address), target_(target) {
    fd_ = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd_ < 0) fail("open a socket");
    const int on = 1;
    if (setsockopt(fd_, IPPROTO_IP, IP_TRANSPARENT, &on, sizeof on) < 0) fail("set IP_TRANSPARENT");
    const sockaddr_in local = endpoint(address, 0);
    if (bind(fd_, reinterpret_cast<const sockaddr*>(&local), sizeof local) < 0) fail("bind");
  }

  [[nodiscard]] uint32_t address() const { return address_; }

  /// Whether what comes has an outer checksum; super-packets must have one.
  void set_bare(bool is_bare) {
    const int on = is_bare ? 1 : 0;
    if (setsockopt(fd_, SOL_SOCKET, SO_NO_CHECK, &on, sizeof on) < 0) fail("set SO_NO_CHECK");
  }

  /// @param messages at most kBatch
  void send(const std::vector<Message>& messages) {
    std::array<mmsghdr, kBatch> headers{};
    std::array<iovec, kBatch> parts{};
    struct alignas(cmsghdr) Control {
      uint8_t bytes[CMSG_SPACE(sizeof(uint16_t))];
    };
    std::array<Control, kBatch> controls{};
    for (size_t i = 0; i < messages.size(); i++) {
      parts[i] = {const_cast<uint8_t*>(messages[i].data.data()), messages[i].data.size()};
      msghdr& header = headers[i].msg_hdr;
      header.msg_name = &target_;
      header.msg_namelen = sizeof target_;
      header.msg_iov = &parts[i];
      header.msg_iovlen = 1;
      if (messages[i].segment_length == 0) continue;
      header.msg_control = controls[i].bytes;
      header.msg_controllen = sizeof controls[i].bytes;
      cmsghdr* control = CMSG_FIRSTHDR(&header);
      control->cmsg_level = IPPROTO_UDP;
      control->cmsg_type = UDP_SEGMENT;
      control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
      std::memcpy(CMSG_DATA(control), &messages[i].segment_length, sizeof(uint16_t));
    }
    for (size_t done = 0; done < messages.size();) {
      const int sent = sendmmsg(fd_, headers.data() + done, static_cast<unsigned>(messages.size() - done), 0);
      if (sent < 0 && errno != EINTR && errno != ENOBUFS && errno != ECONNREFUSED) fail("send");
      if (sent > 0) done += static_cast<size_t>(sent);
    }
  }

 private:
  const uint32_t address_;
  sockaddr_in target_;
  int fd_;
};

/// Bytes that wait in all sockets of a port, by /proc/net/udp.
uint64_t queued_bytes(const std::string& file, uint16_t port) {
  std::ifstream lines(file);
  std::string line;
  std::getline(lines, line);
  uint64_t total = 0;
  bool is_found = false;
  while (std::getline(lines, line)) {
    unsigned local_port = 0;
    uint64_t waiting = 0;
    if (std::sscanf(line.c_str(), "%*d: %*x:%x %*x:%*x %*x %*x:%" SCNx64, &local_port, &waiting) != 2) continue;
    if (local_port != port) continue;
    is_found = true;
    total += waiting;
  }
  if (!is_found) {
    errno = ENOENT;
    fail("find the tunnel's socket in " + file);
  }
  return total;
}

class Generator {
 public:
  Generator(uint32_t target, uint32_t destination, uint32_t subnet, bool has_supers)
      : target_(target), destination_(destination), subnet_(subnet), has_supers_(has_supers) {}

  Message next() {
    // The generator of the fuzz targets, fed with noise.
    std::array<uint8_t, 64> noise;
    for (uint8_t& each : noise) each = random_.byte();
    FuzzInput input(noise.data(), noise.size());
    serial_++;
    if (has_supers_ && input.one_in(16)) return super(input);
    const size_t most = input.one_in(16) ? 3000 : input.one_in(8) ? 1400 : 100;
    Bytes packet = hostile_packet(input, {source(input), destination_, serial_}, most);
    // Without fragments, for the same reason as without super-packets.
    if (!has_supers_) packet.resize(std::min<size_t>(packet.size(), 1472));
    return {std::move(packet)};
  }

 private:
  uint32_t source(FuzzInput& input) const {
    const uint32_t right = subnet_ + 2 + static_cast<uint32_t>(input.below(16));
    if (!input.one_in(8)) return right;
    const std::array<uint32_t, 6> forged = {
        ipv4(10, 5, 250, 9), ipv4(203, 0, 113, 5), ipv4(127, 0, 0, 1), 0, destination_, target_};
    return forged[input.below(forged.size())];
  }

  /// Segments of one length, some of them damaged, the last one shorter now and then.
  Message super(FuzzInput& input) {
    const size_t length = 1 + input.word() % 1472U;
    const size_t count = 2 + input.below(std::min(kMaxSegments, kMaxUdpPayload / length) - 1);
    Message message{.data = {}, .segment_length = static_cast<uint16_t>(length)};
    for (size_t i = 0; i < count; i++) {
      serial_++;
      const Ip ip{.source = source(input), .destination = destination_, .id = serial_};
      Bytes packet = length >= 28 ? make_udp(ip, {}, pattern(length - 28, serial_)) : pattern(length, serial_);
      if (random_.one_in(8)) packet[random_.below(length)] = random_.byte();
      message.data.insert(message.data.end(), packet.begin(), packet.end());
    }
    if (input.one_in(4)) message.data.resize(message.data.size() - input.word() % length);
    return message;
  }

  const uint32_t target_;
  const uint32_t destination_;
  const uint32_t subnet_;
  const bool has_supers_;
  uint16_t serial_ = 0;
  Random random_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 11 && argc != 12) {
    std::fprintf(stderr, "usage: see the head of flood.cc\n");
    return 2;
  }
  const uint32_t target = address_of(argv[1]);
  const auto port = static_cast<uint16_t>(std::atoi(argv[2]));
  const std::string queue = argv[3];
  const uint64_t wanted = std::strtoull(argv[4], nullptr, 10);
  const uint64_t window = std::strtoull(argv[5], nullptr, 10);
  const bool is_strict = std::strcmp(argv[6], "strict") == 0;
  const uint32_t destination = address_of(argv[7]);
  const uint32_t subnet = address_of(argv[8]);
  const uint32_t peer = address_of(argv[9]);
  const SlowState state{.routes = {{subnet, 24, peer}},
                        .own = {{destination & 0xffffff00, 24}, {target, 32}},
                        .verify = is_strict ? VerifySource::kStrict : VerifySource::kOuter};
  std::array<Source, 2> sources = {Source(peer, endpoint(target, port)),
                                   Source(address_of(argv[10]), endpoint(target, port))};
  Generator generator(target, destination, subnet, window > 0);
  const bool sends_bare = argc == 12;

  uint64_t sent = 0;
  uint64_t delivered = 0;
  std::array<uint64_t, kDropReasonCount> drops{};
  uint64_t outstanding = 0;
  for (size_t turn = 0; sent < wanted; turn++) {
    // One batch in eight comes from the stranger.
    Source& source = sources[turn % 8 == 7 ? 1 : 0];
    std::vector<Message> batch;
    while (batch.size() < kBatch && sent < wanted) {
      Message message = generator.next();
      const size_t step = message.segment_length == 0 ? message.data.size() : message.segment_length;
      size_t at = 0;
      do {
        const size_t end = std::min(at + step, message.data.size());
        const Bytes datagram(message.data.begin() + static_cast<std::ptrdiff_t>(at),
                             message.data.begin() + static_cast<std::ptrdiff_t>(end));
        const DropReason reason = slow_receive(state, source.address(), datagram);
        reason == DropReason::kNone ? delivered++ : drops[static_cast<size_t>(reason)]++;
        sent++;
        outstanding += datagram.size() + kOverhead;
        at = end;
      } while (at < message.data.size());
      batch.push_back(std::move(message));
    }
    std::vector<Message> bare;
    if (sends_bare && turn % 2 == 1) {
      const auto first = std::stable_partition(batch.begin(), batch.end(),
                                               [](const Message& each) { return each.segment_length != 0; });
      bare.assign(std::make_move_iterator(first), std::make_move_iterator(batch.end()));
      batch.erase(first, batch.end());
    }
    source.send(batch);
    source.set_bare(true);
    source.send(bare);
    source.set_bare(false);
    if (window == 0 || outstanding < window) continue;
    while (queued_bytes(queue, port) > 0) std::this_thread::yield();
    outstanding = 0;
  }

  std::ostringstream reasons;
  for (size_t i = 0; i < kDropReasonCount; i++) {
    if (drops[i] == 0) continue;
    reasons << (reasons.tellp() == 0 ? "" : ",") << '"' << kDropReasonNames[i] << "\":" << drops[i];
  }
  std::printf("{\"sent\":%" PRIu64 ",\"delivered\":%" PRIu64 ",\"drops\":{%s}}\n", sent, delivered,
              reasons.str().c_str());
  return 0;
}
