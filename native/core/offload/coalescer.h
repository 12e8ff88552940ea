// Joins consecutive segments of a flow, as they come from peers, into packets that the TUN takes in one write.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vnet_header.h"

namespace tsflannel {

/// What may be merged; can change between two batches.
struct CoalescerOptions {
  bool merge_tcp = true;
  /// Needs TUN_F_USO4; some drivers mishandle merged UDP that is forwarded, hence a switch of its own.
  bool merge_udp = true;
  /// Largest merged packet in bytes; 65535 = largest IPv4 packet.
  size_t max_bytes = 65535;
  /// Most segments of a merged packet, 1…kCoalescerMaxSegments; 64 = UDP_MAX_SEGMENTS before Linux 6.9 and more than
  /// 65535 bytes hold at a usual MTU.
  size_t max_segments = 64;
};

/// Upper limit of CoalescerOptions::max_segments: writev() takes IOV_MAX = 1024 entries, and the vnet header needs one.
inline constexpr size_t kCoalescerMaxSegments = 1023;

/// One write to the TUN.
struct CoalescedItem {
  std::span<const iovec>
      iovecs;          ///< for one writev(): vnet header, first packet, payloads; valid until the next item()
  size_t packets = 0;  ///< inner packets in it
  size_t bytes = 0;    ///< of the IP packet, without the vnet header
  bool merged() const { return packets > 1; }
  /// For the counters: sum of the lengths of the inner packets.
  size_t inner_bytes = 0;
};

/// Groups the packets of one receive batch. Pure, no allocation after construction, one thread.
///
///   for each packet:  TTL decrement, then add(); if false: write out, reset(), add() again
///   finish(); for i < size():  writev(item(i).iovecs); EINVAL on a merged one: restore(i), write each original(i)
///   reset()
///
/// Packets are borrowed from add() to reset(), and the first packet of a merged item is changed in place by finish().
///
/// Order: items come in the order of their first packets. Inside a flow (addresses, ports, protocol) nothing overtakes:
/// a packet that cannot be merged ends its flow's item and comes after it. Packets of different flows may change
/// places.
///
/// A packet is merged only if segmenting the merged packet again gives back the same packets (but for the IP ID of
/// packets with DF, which means nothing, RFC 6864 section 4.1). Anything else is an item of its own: without vnet
/// flags, and not a byte changed. Its checksums are then as the sender left them, so the stack finds the bad ones.
class Coalescer {
 public:
  /// Room for `max_packets` (1…65534) packets between two reset()s.
  explicit Coalescer(size_t max_packets, const CoalescerOptions& options = {});
  Coalescer(const Coalescer&) = delete;
  Coalescer& operator=(const Coalescer&) = delete;

  /// Takes effect for packets added later; call it when the batch is empty.
  void set_options(const CoalescerOptions& options);
  [[nodiscard]] const CoalescerOptions& options() const { return options_; }

  /// Adds a packet of 1…65535 bytes; false if there is no room. Any bytes are accepted: what is not understood goes
  /// alone.
  [[nodiscard]] bool add(std::span<uint8_t> packet);

  /// Completes the headers of all merged items; no add() from here to reset().
  void finish();

  /// Number of items.
  [[nodiscard]] size_t size() const { return item_count_; }
  [[nodiscard]] bool empty() const { return item_count_ == 0; }
  /// Packets taken since the last reset().
  [[nodiscard]] size_t packet_count() const { return packet_count_; }

  /// The write for item `index`, after finish().
  [[nodiscard]] CoalescedItem item(size_t index);

  /// Undoes the changes of finish() in a merged item, so that its packets can be written one by one; returns their
  /// number.
  size_t restore(size_t index);

  /// The two iovecs to write packet `nth` of item `index` alone: an empty vnet header and the packet; valid until the
  /// next call of item() or original(). Call restore(index) first. Cheapest in ascending order of `nth`.
  [[nodiscard]] std::span<const iovec> original(size_t index, size_t nth);

  /// Forgets all packets.
  void reset();

 private:
  static constexpr size_t kFlows = 16;  // held open at once; 8 were enough for 4 streams both ways (measured)
  static constexpr uint16_t kNoPacket = 0xffff;

  struct Packet {
    uint8_t* data;
    uint16_t length;
    uint16_t next;  // in the same item, or kNoPacket
  };

  struct Item {
    uint32_t inner_bytes;  // sum of the lengths of its packets
    uint16_t bytes;        // of the IP packet
    uint16_t first;        // index into packets_
    uint16_t last;
    uint16_t count;
    uint16_t header_length;  // IP and TCP/UDP header of its packets; 0 if the packet is not one that merges
    uint16_t gso_size;       // payload of the first packet
    bool patched;            // finish() changed the first packet; the values before are these:
    uint8_t saved_tcp_flags;
    uint16_t saved_total_length;
    uint16_t saved_ip_checksum;
    uint16_t saved_udp_length;
    uint16_t saved_l4_checksum;
  };

  struct FlowKey {
    uint64_t addresses;
    uint64_t ports;  // ports, and protocol above them
    bool operator==(const FlowKey&) const = default;
  };

  struct Flow {
    uint32_t next_sequence;  // TCP
    uint16_t item;           // index into items_
    uint16_t next_id;        // IP ID of the next packet
    bool open;               // the item may grow
    bool first_verified;     // checksums of the item's first packet are known to be right
  };

  // A packet whose headers allow merging; the numbers that the decisions need.
  struct Candidate {
    uint8_t* data;
    uint16_t length;
    uint16_t header_length;
    bool is_tcp;
  };

  [[nodiscard]] bool classify(std::span<uint8_t> packet, Candidate& candidate) const;
  [[nodiscard]] bool append(Flow& flow, const Candidate& candidate);
  void start(Flow& flow, const Candidate& candidate);
  [[nodiscard]] Flow& claim_flow(const FlowKey& key);
  [[nodiscard]] size_t find_flow(const FlowKey& key) const;
  Item& add_item(std::span<uint8_t> packet);
  uint16_t add_packet(std::span<uint8_t> packet);
  void close_flows_of(std::span<const uint8_t> packet);

  CoalescerOptions options_;
  std::vector<Packet> packets_;  // sized by the constructor
  std::vector<Item> items_;      // sized by the constructor
  size_t packet_count_ = 0;
  size_t item_count_ = 0;
  // Flows seen in this batch. Keys lie apart from the rest, so that a search reads few cache lines.
  std::array<FlowKey, kFlows> keys_{};
  std::array<Flow, kFlows> flows_{};
  size_t flow_count_ = 0;
  size_t last_flow_ = 0;    // where the last packet went
  size_t next_victim_ = 0;  // replaced next when all are taken
  // Scratch of item() and original().
  VnetHeader vnet_{};
  std::vector<iovec> iovecs_;
  size_t cursor_item_ = 0;
  size_t cursor_nth_ = 0;
  uint16_t cursor_packet_ = kNoPacket;
};

}  // namespace tsflannel
