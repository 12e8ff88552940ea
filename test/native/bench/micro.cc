// Time of the packet core's inner loops, each beside the simple way to do the same. JSON on standard output; the first
// argument limits the run to cases whose name contains it.
//
// Every case runs kRounds rounds, candidate and reference taking turns, and the median counts, since other work shares
// the machine. Data is as warm in the cache as it is in the worker: a few buffers, used again and again.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <unordered_map>

#include "../../../native/core/offload/coalescer.h"
#include "../../../native/core/offload/segmenter.h"
#include "../../../native/core/packet/checksum.h"
#include "../../../native/core/peers/peer_table.h"
#include "../support/packets.h"

namespace tsflannel::testing {

// The builders report through the harness; here a wrong packet would be a bug of the benchmark.
uint64_t seed() {
  return 1;
}

}  // namespace tsflannel::testing

using namespace tsflannel;
using namespace tsflannel::testing;

namespace {

constexpr int kRounds = 11;
constexpr double kRoundSeconds = 0.02;

// Keeps the compiler from dropping the work.
volatile uint64_t sink = 0;
volatile uint32_t unknown_zero = 0;

using Work = std::function<uint64_t()>;

double seconds_of(const Work& work, size_t times) {
  const auto begin = std::chrono::steady_clock::now();
  uint64_t sum = 0;
  for (size_t i = 0; i < times; i++) sum += work();
  sink = sink + sum;
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

size_t calibrate(const Work& work) {
  size_t times = 1;
  while (seconds_of(work, times) < kRoundSeconds / 4) times *= 2;
  return times * 4;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

bool first_case = true;
const char* filter = "";

// `operations`: how many things one call of the work does, such as packets; `bytes`: how many it goes through.
void report(const std::string& name, const char* unit, size_t operations, size_t bytes, const Work& candidate,
            const Work& reference, size_t reference_operations = 0, size_t memory_bytes = 0) {
  if (name.find(filter) == std::string::npos) return;
  if (reference_operations == 0) reference_operations = operations;
  const size_t times = calibrate(candidate);
  const size_t reference_times = calibrate(reference);
  std::vector<double> candidate_ns;
  std::vector<double> reference_ns;
  for (int round = 0; round < kRounds; round++) {
    candidate_ns.push_back(seconds_of(candidate, times) * 1e9 / static_cast<double>(times * operations));
    reference_ns.push_back(seconds_of(reference, reference_times) * 1e9 /
                           static_cast<double>(reference_times * reference_operations));
  }
  const double ns = median(candidate_ns);
  const double slow = median(reference_ns);
  std::printf("%s\n    {\"name\": \"%s\", \"unit\": \"ns/%s\", \"median\": %.2f, \"min\": %.2f, \"max\": %.2f, ",
              first_case ? "" : ",", name.c_str(), unit, ns,
              *std::min_element(candidate_ns.begin(), candidate_ns.end()),
              *std::max_element(candidate_ns.begin(), candidate_ns.end()));
  std::printf("\"reference\": %.2f, \"ratio\": %.2f", slow, slow / ns);
  if (bytes != 0) {
    std::printf(", \"gigabytesPerSecond\": %.2f", static_cast<double>(bytes) / (ns * static_cast<double>(operations)));
  }
  if (memory_bytes != 0) std::printf(", \"memoryBytes\": %zu", memory_bytes);
  std::printf("}");
  std::fflush(stdout);
  first_case = false;
}

void bench_checksum() {
  for (const size_t length : {size_t{20}, size_t{40}, size_t{64}, size_t{128}, size_t{256}, size_t{576}, size_t{1432},
                              size_t{8960}, size_t{65000}}) {
    const Bytes data = pattern(length);
    report(
        "checksum/" + std::to_string(length), "call", 1, length,
        [&] { return fold_sum(sum_bytes(data.data(), data.size())); }, [&] { return slow_sum(data); });
    report(
        "checksum-portable/" + std::to_string(length), "call", 1, length,
        [&] { return fold_sum(sum_bytes_portable(data.data(), data.size())); }, [&] { return slow_sum(data); });
  }
}

// What a simple program does: copy each segment out, then checksum it whole.
uint64_t simple_segment(const VnetHeader& vnet, const Bytes& packet, Bytes& out) {
  const size_t headers = vnet.gso_type == kGsoTcpV4 ? 52 : 28;
  const size_t l4_checksum = vnet.gso_type == kGsoTcpV4 ? 36 : 26;
  uint16_t index = 0;
  for (size_t at = headers; at < packet.size(); at += vnet.gso_size, index++) {
    const size_t payload = std::min<size_t>(vnet.gso_size, packet.size() - at);
    out.resize(headers + payload);
    std::memcpy(out.data(), packet.data(), headers);
    std::memcpy(out.data() + headers, packet.data() + at, payload);
    put16(out, 2, static_cast<uint16_t>(out.size()));
    put16(out, 4, static_cast<uint16_t>(get16(packet, 4) + index));
    put16(out, 10, 0);
    put16(out, 10, static_cast<uint16_t>(~slow_sum({out.data(), 20})));
    if (vnet.gso_type == kGsoTcpV4) {
      put32(out, 24, get32(packet, 24) + static_cast<uint32_t>(at - headers));
    } else {
      put16(out, 24, static_cast<uint16_t>(out.size() - 20));
    }
    put16(out, l4_checksum, 0);
    const uint16_t pseudo = slow_sum({out.data() + 12, 8}, uint32_t{out[9]} + static_cast<uint32_t>(out.size() - 20));
    put16(out, l4_checksum, static_cast<uint16_t>(~slow_sum({out.data() + 20, out.size() - 20}, pseudo)));
  }
  return index;
}

void bench_segmenter() {
  const Bytes tcp = make_tcp({}, {.flags = 0x18, .options = timestamps(1, 2)}, pattern(64000));
  const Bytes udp = make_udp({}, {}, pattern(64000));
  struct Case {
    const char* name;
    VnetHeader vnet;
    const Bytes& packet;
  };
  const Case cases[] = {{"segment/tcp-64000-by-1420", {1, kGsoTcpV4, 52, 1420, 20, 16}, tcp},
                        {"segment/tcp-64000-by-536", {1, kGsoTcpV4, 52, 536, 20, 16}, tcp},
                        {"segment/udp-64000-by-1444", {1, kGsoUdpL4, 28, 1444, 20, 6}, udp}};
  for (const Case& c : cases) {
    Bytes memory = c.packet;
    Bytes out;
    Segmenter segmenter;
    if (segmenter.begin(c.vnet, memory) != SegmentStatus::kOk) std::abort();
    Bytes headers(segmenter.count() * segmenter.header_length());
    std::vector<iovec> iovecs(segmenter.count() * 2);
    report(
        c.name, "segment", segmenter.count(), c.packet.size(),
        [&] {
          if (segmenter.begin(c.vnet, memory) != SegmentStatus::kOk) std::abort();
          return uint64_t{segmenter.emit(0, segmenter.count(), headers.data(), iovecs.data())};
        },
        [&] { return simple_segment(c.vnet, c.packet, out); });
  }
  Bytes small = make_udp({}, {}, pattern(64));
  const Bytes before = small;
  Segmenter segmenter;
  report(
      "segment/single-92", "packet", 1, small.size(),
      [&] {
        return uint64_t{segmenter.begin({1, kGsoNone, 28, 0, 20, 6}, small) == SegmentStatus::kOk};
      },
      [&] {
        small = before;
        fill_l4_checksum(small);
        return uint64_t{small[26]};
      });
}

// What a simple program does: verify each packet and copy payloads behind the first packet of the flow.
uint64_t simple_coalesce(const std::vector<Bytes>& batch, std::vector<Bytes>& out) {
  std::unordered_map<uint64_t, size_t> open;
  size_t used = 0;
  for (const Bytes& packet : batch) {
    const size_t headers = packet[9] == 6 ? 20U + static_cast<size_t>(packet[32] >> 4) * 4 : 28U;
    const bool right = slow_sum({packet.data(), 20}) == 0xffff && [&] {
      const auto l4_length = static_cast<uint32_t>(packet.size() - 20);
      return slow_sum({packet.data() + 20, packet.size() - 20},
                      slow_sum({packet.data() + 12, 8}, uint32_t{packet[9]} + l4_length)) == 0xffff;
    }();
    const uint64_t key = uint64_t{get32(packet, 20)} << 32 | get32(packet, 16);
    const auto found = open.find(key);
    if (right && found != open.end() && out[found->second].size() + packet.size() - headers <= 65535) {
      Bytes& merged = out[found->second];
      merged.insert(merged.end(), packet.begin() + static_cast<std::ptrdiff_t>(headers), packet.end());
      continue;
    }
    if (used == out.size()) out.emplace_back();
    out[used].assign(packet.begin(), packet.end());
    open[key] = used++;
  }
  return used;
}

void bench_coalescer() {
  struct Case {
    const char* name;
    size_t flows;
    size_t packets;
    size_t payload;
    bool udp;
    bool mergeable;
  };
  const Case cases[] = {
      {"coalesce/tcp-1-flow-1420", 1, 45, 1420, false, true}, {"coalesce/tcp-8-flows-1420", 8, 88, 1420, false, true},
      {"coalesce/udp-1-flow-64", 1, 64, 64, true, true},      {"coalesce/udp-16-flows-64", 16, 64, 64, true, true},
      {"coalesce/udp-64-flows-64", 64, 64, 64, true, true},   {"coalesce/tcp-acks", 4, 64, 0, false, false},
  };
  for (const Case& c : cases) {
    std::vector<Bytes> batch;
    for (size_t i = 0; i < c.packets; i++) {
      const auto port = static_cast<uint16_t>(1000 + i % c.flows);
      const size_t nth = i / c.flows;
      const Ip ip = {.id = static_cast<uint16_t>(nth)};
      batch.push_back(c.udp ? make_udp(ip, {port, 53}, pattern(c.payload))
                            : make_tcp(ip,
                                       {.source_port = port,
                                        .sequence = static_cast<uint32_t>(nth * c.payload),
                                        .options = timestamps(1, 2)},
                                       pattern(c.payload)));
    }
    const std::vector<Bytes> original = batch;
    std::vector<Bytes> out;
    Coalescer coalescer(256);
    size_t bytes = 0;
    for (const Bytes& packet : batch) bytes += packet.size();
    report(
        c.name, "packet", c.packets, bytes,
        [&] {
          for (Bytes& packet : batch) {
            if (!coalescer.add(packet)) std::abort();
          }
          coalescer.finish();
          uint64_t sum = 0;
          for (size_t i = 0; i < coalescer.size(); i++) {
            sum += coalescer.item(i).iovecs.size();
            coalescer.restore(i);  // so that the next round finds the same packets
          }
          coalescer.reset();
          return sum;
        },
        [&] { return simple_coalesce(original, out); });
  }
}

void bench_lookup() {
  struct Case {
    const char* name;
    size_t count;
    uint8_t length;  // 0: random ones
  };
  const Case cases[] = {{"10", 10, 24},       {"1000", 1000, 24},       {"100000", 100000, 26},
                        {"random-10", 10, 0}, {"random-1000", 1000, 0}, {"random-100000", 100000, 0}};
  for (const Case& c : cases) {
    testing::Random random;
    std::vector<PeerEntry> entries;
    for (size_t i = 0; i < c.count; i++) {
      const uint32_t peer = static_cast<uint32_t>(i);
      if (c.length != 0) {
        entries.push_back({ipv4(10, 0, 0, 0) + (peer << (32 - c.length)), c.length, peer});
      } else {
        const auto length = static_cast<uint8_t>(16 + random.below(13));
        const uint32_t prefix = (ipv4(10, 0, 0, 0) | (random.word() >> 8)) & (~uint32_t{0} << (32 - length));
        entries.push_back({prefix, length, peer});
      }
    }
    const auto table = PeerTable::build(entries, std::vector<Peer>(c.count), 1);
    if (!table.ok()) std::abort();
    // Addresses inside random prefixes; enough of them that no predictor learns them.
    std::vector<uint32_t> addresses(8192);
    for (uint32_t& address : addresses) {
      const PeerEntry& entry = entries[random.below(entries.size())];
      address = entry.prefix | (random.word() & (~uint32_t{0} >> entry.length));
    }
    const PeerTable& built = *table.value();
    // As on the packet path: one lookup does not wait for another.
    const Work independent = [&] {
      uint64_t sum = 0;
      for (const uint32_t address : addresses) sum += built.lookup(address);
      return sum;
    };
    // Each address depends on the last result, which shows the whole latency. The mask is 0, but the compiler cannot
    // know.
    const uint32_t mask = unknown_zero;
    const Work dependent = [&] {
      uint32_t carry = 0;
      for (const uint32_t address : addresses) carry = built.lookup(address ^ (carry & mask));
      return uint64_t{carry};
    };
    const auto linear = [&](uint32_t address) {
      uint32_t best = kNoPeer;
      int best_length = -1;
      for (const PeerEntry& entry : entries) {
        if (((address ^ entry.prefix) & (~uint32_t{0} << (32 - entry.length))) == 0 && entry.length > best_length) {
          best = entry.peer;
          best_length = entry.length;
        }
      }
      return best;
    };
    // The whole set would take a linear search minutes; a part of it has the same cost per lookup.
    const size_t part = std::clamp<size_t>(2'000'000 / c.count, 1, addresses.size());
    size_t at = 0;
    const Work reference = [&] {
      uint64_t sum = 0;
      for (size_t i = 0; i < part; i++) sum += linear(addresses[at++ % addresses.size()]);
      return sum;
    };
    const std::string name = c.name;
    report("lookup/" + name, "lookup", addresses.size(), 0, independent, reference, part, built.memory_bytes());
    report("lookup-latency/" + name, "lookup", addresses.size(), 0, dependent, reference, part, built.memory_bytes());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) filter = argv[1];
  std::printf("{\n  \"checksum\": \"%s\",\n  \"rounds\": %d,\n  \"cases\": [", sum_bytes_implementation(), kRounds);
  bench_checksum();
  bench_segmenter();
  bench_coalescer();
  bench_lookup();
  std::printf("\n  ]\n}\n");
  return 0;
}
