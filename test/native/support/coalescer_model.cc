#include "coalescer_model.h"

#include <algorithm>
#include <cstring>
#include <map>

namespace tsflannel::testing {

Bytes without_meaningless_id(Bytes packet) {
  if (packet.size() >= 20 && (packet[6] & 0x40) != 0) {
    put16(packet, 4, 0);
    put16(packet, 10, 0);
  }
  return packet;
}

FlowKey flow_of(const Bytes& packet) {
  if (packet.size() < 20 || packet[0] >> 4 != 4) return {0, 0, 0, 0};
  const size_t ip_length = static_cast<size_t>(packet[0] & 15) * 4;
  uint32_t ports = 0;
  if ((packet[9] == 6 || packet[9] == 17) && (get16(packet, 6) & 0x1fff) == 0 && ip_length >= 20 &&
      packet.size() >= ip_length + 4) {
    ports = get32(packet, ip_length);
  }
  return {get32(packet, 12), get32(packet, 16), packet[9], ports};
}

std::string fault_of_merged(const VnetHeader& vnet, const Bytes& packet) {
  const bool is_tcp = packet.at(9) == 6;
  if (vnet.flags != 1 || vnet.gso_type != (is_tcp ? 1 : 5) || vnet.csum_start != 20 ||
      vnet.csum_offset != (is_tcp ? 16 : 6)) {
    return "wrong vnet header";
  }
  if (vnet.header_length != (is_tcp ? 20 + (packet.at(32) >> 4) * 4 : 28)) return "wrong hdr_len";
  if (!ip_checksum_right(packet)) return "wrong IP checksum of a merged packet";
  // The field must hold what the rest lacks: the pseudo header's sum.
  Bytes completed = packet;
  const uint16_t partial = get16(packet, 20U + vnet.csum_offset);
  put16(completed, 20U + vnet.csum_offset, 0);
  const uint16_t body = slow_sum(std::span(completed).subspan(20));
  if (slow_sum({}, uint32_t{partial} + body) != slow_l4_sum(completed)) return "wrong partial checksum";
  return {};
}

std::vector<Written> coalesce(Coalescer& coalescer, const std::vector<Bytes>& batch, std::string& error) {
  error.clear();
  const auto fail = [&](const std::string& what) {
    if (error.empty()) error = what;
  };
  coalescer.reset();
  std::vector<Bytes> memory = batch;  // changed in place
  for (Bytes& packet : memory) {
    if (!coalescer.add(packet)) fail("no room");
  }
  coalescer.finish();

  std::vector<Written> written;
  std::vector<bool> used(batch.size(), false);
  size_t last_first = 0;
  std::map<FlowKey, size_t> last_of_flow;
  size_t total = 0;
  for (size_t i = 0; i < coalescer.size(); i++) {
    const CoalescedItem item = coalescer.item(i);
    Written out{{}, gather(item.iovecs, 1), item.packets};
    if (item.iovecs[0].iov_len != kVnetHeaderSize) fail("no vnet header in front");
    std::memcpy(&out.vnet, item.iovecs[0].iov_base, kVnetHeaderSize);
    total += item.packets;
    if (item.bytes != out.packet.size()) fail("bytes differ from the iovecs");
    const size_t item_inner_bytes = item.inner_bytes;

    // Which inputs the item is made of: their memory says so.
    std::vector<size_t> inputs;
    const bool merged = item.merged();
    const Bytes patched = merged ? out.packet : Bytes{};
    const size_t count = coalescer.restore(i);
    if (count != out.packets) fail("restore() and item() disagree on the number of packets");
    size_t inner_bytes = 0;
    for (size_t nth = 0; nth < count; nth++) {
      const std::span<const iovec> original = coalescer.original(i, nth);
      static constexpr uint8_t kNoFlags[kVnetHeaderSize] = {};
      if (original.size() != 2 || original[0].iov_len != kVnetHeaderSize ||
          std::memcmp(original[0].iov_base, kNoFlags, kVnetHeaderSize) != 0) {
        fail("a replayed packet has vnet flags");
      }
      const auto found = std::find_if(memory.begin(), memory.end(),
                                      [&](const Bytes& input) { return input.data() == original[1].iov_base; });
      if (found == memory.end()) {
        fail("a packet was invented");
        return written;
      }
      const auto index = static_cast<size_t>(found - memory.begin());
      if (used[index]) fail("a packet was written twice");
      used[index] = true;
      if (gather(original, 1) != batch[index]) fail("restore() did not give back the packet");
      inner_bytes += batch[index].size();
      inputs.push_back(index);
    }
    if (item_inner_bytes != inner_bytes) fail("inner bytes do not add up");

    if (i != 0 && inputs.front() < last_first) fail("items are not in the order of their first packets");
    last_first = inputs.front();
    for (const size_t index : inputs) {
      auto [entry, is_new] = last_of_flow.try_emplace(flow_of(batch[index]), index);
      if (!is_new && entry->second > index) fail("a packet was overtaken inside its flow");
      entry->second = index;
    }

    if (!merged) {
      if (out.packet != batch[inputs.front()]) fail("a single packet was changed");
      if (out.vnet.flags != 0 || out.vnet.gso_type != 0) fail("a single packet has vnet flags");
      written.push_back(std::move(out));
      continue;
    }
    if (const std::string fault = fault_of_merged(out.vnet, patched); !fault.empty()) fail(fault);

    const auto segments = slow_segment(out.vnet, patched);
    if (!segments || segments->size() != inputs.size()) {
      fail("segmenting a merged packet gives another number of packets");
      return written;
    }
    for (size_t nth = 0; nth < inputs.size(); nth++) {
      const Bytes got = without_meaningless_id((*segments)[nth]);
      const Bytes want = without_meaningless_id(batch[inputs[nth]]);
      if (got != want) fail("segmenting gives " + hex(got) + " for " + hex(want));
    }
    written.push_back(std::move(out));
  }
  if (total != batch.size() || std::find(used.begin(), used.end(), false) != used.end()) fail("a packet was lost");
  return written;
}

}  // namespace tsflannel::testing
