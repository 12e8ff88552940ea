#include "peer_table.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <string>

namespace tsflannel {
namespace {

constexpr uint32_t kNodeBits = 8;
constexpr size_t kNodeSlots = size_t{1} << kNodeBits;

constexpr uint32_t kMinRootBits = 8;   // 1 KiB: a quarter of a handful of cache lines is ever touched in a small table
constexpr uint32_t kMaxRootBits = 18;  // 1 MiB: about the L2 cache of a server core

uint32_t mask_of(uint32_t length) {
  return length == 0 ? 0 : 0xffffffffU << (32 - length);
}

std::string describe(const PeerEntry& entry) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) {
    text += std::to_string((entry.prefix >> shift) & 0xff);
    text += shift == 0 ? '/' : '.';
  }
  return text + std::to_string(entry.length) + " at peer " + std::to_string(entry.peer);
}

// Spreads addresses that differ in their low bits only (Fibonacci hashing: 2^32 divided by the golden ratio).
uint32_t hash(uint32_t outer) {
  return outer * 0x9e3779b1U;
}

}  // namespace

class PeerTable::Builder {
 public:
  explicit Builder(PeerTable& table) : table_(table) {}

  void build_prefixes(std::span<const PeerEntry> input);
  void build_outer(std::span<const Peer> peers);

 private:
  // These two call each other, four deep at most: each node takes 8 of the 32 bits.
  // NOLINTBEGIN(misc-no-recursion)

  // Fills `slots`, which stand for the `bits` bits after the first `consumed` ones, from entries that agree in those.
  void fill(std::span<uint32_t> slots, std::span<const PeerEntry> entries, uint32_t consumed, uint32_t bits,
            uint32_t inherited);
  uint32_t build_node(std::span<const PeerEntry> entries, uint32_t consumed, uint32_t inherited);

  // NOLINTEND(misc-no-recursion)

  PeerTable& table_;
};

void PeerTable::Builder::build_prefixes(std::span<const PeerEntry> input) {
  std::vector<PeerEntry> entries(input.begin(), input.end());
  const auto before = [](const PeerEntry& a, const PeerEntry& b) {
    return a.prefix != b.prefix ? a.prefix < b.prefix : a.length < b.length;
  };
  std::stable_sort(entries.begin(), entries.end(), before);
  size_t kept = 0;
  for (size_t i = 0; i < entries.size(); i++) {
    if (i + 1 < entries.size() && !before(entries[i], entries[i + 1])) continue;  // the last of equals counts
    entries[kept++] = entries[i];
  }
  entries.resize(kept);
  if (entries.empty()) {
    table_.root_ = {kNone, kNone};
    return;
  }

  uint32_t common = 31;  // one bit is left to index the root with
  uint32_t longest = 0;
  for (const PeerEntry& entry : entries) {
    const auto agreed = static_cast<uint32_t>(std::countl_zero(entry.prefix ^ entries[0].prefix));
    common = std::min({common, agreed, uint32_t{entry.length}});
    longest = std::max(longest, uint32_t{entry.length});
  }
  // Four slots per prefix: dense tables fit whole, and sparse ones stay in proportion.
  const uint32_t wanted =
      std::clamp(static_cast<uint32_t>(std::bit_width(entries.size())) + 2, kMinRootBits, kMaxRootBits);
  const uint32_t bits = std::clamp(longest - common, uint32_t{1}, wanted);
  table_.base_ = entries[0].prefix;
  table_.common_bits_ = common;
  table_.common_mask_ = mask_of(common);
  table_.root_shift_ = 32 - bits;
  table_.root_.resize(size_t{1} << bits);
  fill(table_.root_, entries, common, bits, kNone);
}

// NOLINTBEGIN(misc-no-recursion)
void PeerTable::Builder::fill(std::span<uint32_t> slots, std::span<const PeerEntry> entries, uint32_t consumed,
                              uint32_t bits, uint32_t inherited) {
  std::fill(slots.begin(), slots.end(), inherited);
  const auto slot_of = [&](const PeerEntry& entry) { return size_t{(entry.prefix << consumed) >> (32 - bits)}; };
  // Shorter prefixes first, so that longer ones paint over them. In a node, those of `consumed` bits or fewer are what
  // was inherited already; in the root such a prefix covers all of it.
  for (uint32_t length = consumed; length <= consumed + bits; length++) {
    for (const PeerEntry& entry : entries) {
      if (entry.length != length) continue;
      const size_t first = slot_of(entry);
      const size_t run = size_t{1} << (consumed + bits - length);
      std::fill_n(slots.begin() + static_cast<std::ptrdiff_t>(first), run, entry.peer);
    }
  }
  for (size_t i = 0; i < entries.size();) {
    const size_t slot = slot_of(entries[i]);
    size_t end = i;
    bool deeper = false;
    for (; end < entries.size() && slot_of(entries[end]) == slot; end++) {
      deeper = deeper || entries[end].length > consumed + bits;
    }
    if (deeper) slots[slot] = build_node(entries.subspan(i, end - i), consumed + bits, slots[slot]);
    i = end;
  }
}

uint32_t PeerTable::Builder::build_node(std::span<const PeerEntry> entries, uint32_t consumed, uint32_t inherited) {
  std::array<uint32_t, kNodeSlots> slots;
  // Prefixes that end before this node are in `inherited`: more specific ones win over them here.
  std::vector<PeerEntry> inside;
  for (const PeerEntry& entry : entries) {
    if (entry.length > consumed) inside.push_back(entry);
  }
  fill(slots, inside, consumed, kNodeBits, inherited);

  Node node{};
  node.first_value = static_cast<uint32_t>(table_.values_.size());
  uint32_t runs = 0;
  for (size_t slot = 0; slot < kNodeSlots; slot++) {
    if (slot % 64 == 0) node.runs_before[slot / 64] = static_cast<uint8_t>(runs);
    if (slot != 0 && slots[slot] == slots[slot - 1]) continue;
    node.run_starts[slot / 64] |= uint64_t{1} << (slot % 64);
    table_.values_.push_back(slots[slot]);
    runs++;
  }
  if (runs == 1) {
    table_.values_.pop_back();
    return slots[0];
  }
  table_.nodes_.push_back(node);
  return kNode | static_cast<uint32_t>(table_.nodes_.size() - 1);
}

// NOLINTEND(misc-no-recursion)

void PeerTable::Builder::build_outer(std::span<const Peer> peers) {
  table_.peers_.assign(peers.begin(), peers.end());
  table_.next_same_outer_.assign(peers.size(), kNoPeer);
  const size_t size = std::bit_ceil(std::max<size_t>(peers.size() * 2, 2));
  table_.outer_slots_.assign(size, {0, kNoPeer});
  table_.outer_shift_ = 32 - static_cast<uint32_t>(std::countr_zero(size));
  // From the last to the first, so that chains ascend.
  for (size_t i = peers.size(); i-- > 0;) {
    size_t slot = hash(peers[i].outer) >> table_.outer_shift_;
    while (table_.outer_slots_[slot].peer != kNoPeer && table_.outer_slots_[slot].outer != peers[i].outer) {
      slot = (slot + 1) & (size - 1);
    }
    table_.next_same_outer_[i] = table_.outer_slots_[slot].peer;
    table_.outer_slots_[slot] = {peers[i].outer, static_cast<uint32_t>(i)};
  }
}

Result<std::unique_ptr<const PeerTable>> PeerTable::build(std::span<const PeerEntry> entries,
                                                          std::span<const Peer> peers, uint64_t generation) {
  constexpr const char* operation = "build peer table";
  if (peers.size() >= (size_t{1} << 30)) return Error{operation, E2BIG, std::to_string(peers.size()) + " peers"};
  for (const PeerEntry& entry : entries) {
    if (entry.length > 32 || (entry.prefix & ~mask_of(entry.length)) != 0) {
      return Error{operation, EINVAL, describe(entry) + ": not a prefix"};
    }
    if (entry.peer >= peers.size()) {
      return Error{operation, EINVAL, describe(entry) + ": only " + std::to_string(peers.size()) + " peers"};
    }
  }
  std::unique_ptr<PeerTable> table(new PeerTable());
  Builder builder(*table);
  builder.build_prefixes(entries);
  builder.build_outer(peers);
  table->generation_ = generation;
  // Copies without spare room: without exceptions, shrink_to_fit() of libstdc++ does nothing.
  table->nodes_ = std::vector<Node>(table->nodes_);
  table->values_ = std::vector<uint32_t>(table->values_);
  return std::unique_ptr<const PeerTable>(std::move(table));
}

uint32_t PeerTable::lookup_node(uint32_t word, uint32_t address) const {
  // A node exists only where a prefix is longer than the bits before it, so the shift is below 32.
  uint32_t rest = address << (common_bits_ + (32 - root_shift_));
  do {
    const Node& node = nodes_[word & ~kNode];
    const uint32_t slot = rest >> (32 - kNodeBits);
    rest <<= kNodeBits;
    const uint64_t up_to_slot = node.run_starts[slot >> 6] & (~uint64_t{0} >> (63 - (slot & 63)));
    const uint32_t run = node.runs_before[slot >> 6] + static_cast<uint32_t>(std::popcount(up_to_slot)) - 1;
    word = values_[node.first_value + run];
  } while ((word & kNode) != 0);
  return word;
}

uint32_t PeerTable::find_outer(uint32_t outer) const {
  const size_t mask = outer_slots_.size() - 1;
  size_t slot = hash(outer) >> outer_shift_;
  while (outer_slots_[slot].peer != kNoPeer && outer_slots_[slot].outer != outer) slot = (slot + 1) & mask;
  return outer_slots_[slot].peer;
}

size_t PeerTable::memory_bytes() const {
  return root_.capacity() * sizeof(uint32_t) + nodes_.capacity() * sizeof(Node) +
         values_.capacity() * sizeof(uint32_t) + peers_.capacity() * sizeof(Peer) +
         next_same_outer_.capacity() * sizeof(uint32_t) + outer_slots_.capacity() * sizeof(OuterSlot) + sizeof(*this);
}

}  // namespace tsflannel
