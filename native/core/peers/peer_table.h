// The forwarding table: which peer holds the subnet of an address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "../base/result.h"

namespace tsflannel {

/// A peer; several subnets may belong to it, and several peers may share an outer address.
struct Peer {
  uint32_t outer = 0;  ///< public IPv4 address, as a number
};

/// A subnet held by a peer.
struct PeerEntry {
  uint32_t prefix = 0;  ///< network address as a number, host bits zero
  uint8_t length = 0;   ///< 0…32
  uint32_t peer = 0;    ///< index into the peers
};

/// What lookup() gives for an address that nobody holds.
inline constexpr uint32_t kNoPeer = 0xffffffff;

/// Immutable longest-prefix-match table over IPv4.
///
/// Threads: built by one, then read by any number; the workers swap whole tables by pointer.
///
/// Structure: the bits that all prefixes share are compared at once. The bits that follow, as many as the table's size
/// and its longest prefix ask for (1…18), index the root: one 32-bit word each, a peer or a node. Where prefixes are
/// longer than that, nodes of 8 bits follow; a node stores each run of equal slots once, behind a bitmap of where runs
/// start. With flannel's allocation (equal subnet lengths, dense from SubnetMin) every address is resolved by the root
/// alone, in as many words as there are subnets: two dozen peers in 128 bytes, and 100 000 in 1 MiB at most. A plain
/// 16-8-8 trie takes 256 KiB for two peers and 1 KiB per node, which falls out of the L1/L2 cache between packets.
class PeerTable {
 public:
  /// Builds a table. Of entries with equal prefix and length, the last one counts. Fails with EINVAL on a length over
  /// 32, host bits that are set, or a peer that does not exist; with E2BIG on 2^30 peers or more.
  [[nodiscard]] static Result<std::unique_ptr<const PeerTable>> build(std::span<const PeerEntry> entries,
                                                                      std::span<const Peer> peers, uint64_t generation);

  /// Peer that holds the longest prefix around `address` (a number), or kNoPeer.
  [[nodiscard]] uint32_t lookup(uint32_t address) const {
    if (((address ^ base_) & common_mask_) != 0) return kNoPeer;
    uint32_t word = root_[(address << common_bits_) >> root_shift_];
    if ((word & kNode) != 0) [[unlikely]]
      word = lookup_node(word, address);
    return word == kNone ? kNoPeer : word;
  }

  /// A peer with this outer address, or kNoPeer; next_with_same_outer() gives the others.
  [[nodiscard]] uint32_t find_outer(uint32_t outer) const;

  /// The next peer with the same outer address as `peer`, or kNoPeer.
  [[nodiscard]] uint32_t next_with_same_outer(uint32_t peer) const { return next_same_outer_[peer]; }

  /// Strict source check: whether a peer at `outer` holds the subnet of `inner_source`.
  [[nodiscard]] bool is_source_allowed(uint32_t outer, uint32_t inner_source) const {
    const uint32_t peer = lookup(inner_source);
    return peer != kNoPeer && peers_[peer].outer == outer;
  }

  [[nodiscard]] const Peer& peer(uint32_t index) const { return peers_[index]; }
  [[nodiscard]] size_t peer_count() const { return peers_.size(); }
  /// Number given to build(); the control plane waits for it to be adopted.
  [[nodiscard]] uint64_t generation() const { return generation_; }
  /// Memory of the table in bytes.
  [[nodiscard]] size_t memory_bytes() const;

 private:
  // A word of root or node: kNone, a peer index, or kNode | node index.
  static constexpr uint32_t kNode = 0x80000000;
  static constexpr uint32_t kNone = 0x7fffffff;

  struct Node {
    uint64_t run_starts[4];  // bit i: slot i differs from slot i - 1; bit 0 is always set
    uint32_t first_value;    // index into values_ of the first run
    uint8_t runs_before[4];  // runs that start in lower words of run_starts
  };

  struct OuterSlot {
    uint32_t outer;
    uint32_t peer;  // first peer with that address, or kNoPeer if free
  };

  class Builder;

  PeerTable() = default;
  [[nodiscard]] uint32_t lookup_node(uint32_t word, uint32_t address) const;

  uint32_t base_ = 0;
  uint32_t common_mask_ = 0;
  uint32_t common_bits_ = 0;
  uint32_t root_shift_ = 31;
  std::vector<uint32_t> root_;
  std::vector<Node> nodes_;
  std::vector<uint32_t> values_;
  std::vector<Peer> peers_;
  std::vector<uint32_t> next_same_outer_;
  std::vector<OuterSlot> outer_slots_;  // open addressing, power of two, at most half full
  uint32_t outer_shift_ = 31;
  uint64_t generation_ = 0;
};

}  // namespace tsflannel
