// Input: entries of 6 bytes (prefix, length, peer). Lookups at the edges of every prefix must equal a linear search.
#include <cstdlib>
#include <vector>

#include "../../../native/core/base/bytes.h"
#include "../../../native/core/peers/peer_table.h"

using namespace tsflannel;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::vector<Peer> peers(256);
  std::vector<PeerEntry> entries;
  for (; size >= 6 && entries.size() < 100; data += 6, size -= 6) {
    const auto length = static_cast<uint8_t>(data[4] % 33);
    const uint32_t mask = length == 0 ? 0 : ~uint32_t{0} << (32 - length);
    entries.push_back({load_be32(data) & mask, length, data[5]});
  }
  const auto table = PeerTable::build(entries, peers, 1);
  if (!table.ok()) std::abort();
  for (const PeerEntry& entry : entries) {
    const uint32_t last = entry.prefix | (entry.length == 32 ? 0 : ~uint32_t{0} >> entry.length);
    for (const uint32_t address : {entry.prefix, entry.prefix - 1, last, last + 1}) {
      uint32_t best = kNoPeer;
      int best_length = -1;
      for (const PeerEntry& other : entries) {
        const uint32_t mask = other.length == 0 ? 0 : ~uint32_t{0} << (32 - other.length);
        if ((address & mask) != other.prefix || other.length < best_length) continue;
        best = other.peer;
        best_length = other.length;
      }
      if (table.value()->lookup(address) != best) std::abort();
    }
  }
  return 0;
}
