#include "../../../native/core/peers/peer_table.h"

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "../support/packets.h"

namespace tsflannel::testing {
namespace {

uint32_t mask_of(uint32_t length) {
  return length == 0 ? 0 : ~uint32_t{0} << (32 - length);
}

std::unique_ptr<const PeerTable> build(const std::vector<PeerEntry>& entries, const std::vector<Peer>& peers,
                                       uint64_t generation = 1) {
  Result<std::unique_ptr<const PeerTable>> table = PeerTable::build(entries, peers, generation);
  CHECK(table.ok());
  return std::move(table).value();
}

// The longest prefix by looking at all of them; of equals the last.
uint32_t slow_lookup(const std::vector<PeerEntry>& entries, uint32_t address) {
  uint32_t best = kNoPeer;
  int best_length = -1;
  for (const PeerEntry& entry : entries) {
    if ((address & mask_of(entry.length)) == entry.prefix && entry.length >= best_length) {
      best = entry.peer;
      best_length = entry.length;
    }
  }
  return best;
}

// Compares at the edges of every prefix, where mistakes would be, and at random addresses.
void check_against_linear(const std::vector<PeerEntry>& entries, size_t peer_count, Random& random) {
  const auto table = build(entries, std::vector<Peer>(peer_count));
  const auto check_at = [&](uint32_t address) {
    const uint32_t got = table->lookup(address);
    const uint32_t want = slow_lookup(entries, address);
    CHECK_EQ_NOTE(got, want, "address " + show(address) + " of " + show(entries.size()) + " prefixes");
  };
  const size_t step = std::max<size_t>(entries.size() / 300, 1);
  for (size_t i = 0; i < entries.size() && passing(); i += step) {
    const uint32_t first = entries[i].prefix;
    const uint32_t last = first | ~mask_of(entries[i].length);
    for (const uint32_t address : {first, first - 1, first + 1, last, last - 1, last + 1}) check_at(address);
    check_at(first + static_cast<uint32_t>(random.next() % (uint64_t{last} - first + 1)));
  }
  for (int i = 0; i < 300 && passing(); i++) check_at(random.word());
  check_at(0);
  check_at(~uint32_t{0});
}

TEST("an empty table has no peer for any address") {
  const auto table = build({}, {}, 42);
  for (const uint32_t address : {uint32_t{0}, ipv4(10, 5, 1, 1), ~uint32_t{0}}) {
    CHECK_EQ(table->lookup(address), kNoPeer);
    CHECK_EQ(table->find_outer(address), kNoPeer);
    CHECK(!table->is_source_allowed(address, address));
  }
  CHECK_EQ(table->generation(), 42U);
  CHECK_EQ(table->peer_count(), 0U);
}

TEST("flannel's usual table: subnets of one length in one network, and nothing outside") {
  std::vector<PeerEntry> entries;
  std::vector<Peer> peers;
  for (uint32_t i = 1; i < 200; i++) {
    entries.push_back({ipv4(10, 5, static_cast<uint8_t>(i), 0), 24, i - 1});
    peers.push_back({ipv4(192, 0, 2, static_cast<uint8_t>(i))});
  }
  const auto table = build(entries, peers);
  CHECK_EQ(table->lookup(ipv4(10, 5, 1, 0)), 0U);
  CHECK_EQ(table->lookup(ipv4(10, 5, 1, 255)), 0U);
  CHECK_EQ(table->lookup(ipv4(10, 5, 199, 77)), 198U);
  CHECK_EQ(table->lookup(ipv4(10, 5, 0, 1)), kNoPeer);
  CHECK_EQ(table->lookup(ipv4(10, 5, 200, 1)), kNoPeer);
  CHECK_EQ(table->lookup(ipv4(10, 6, 1, 1)), kNoPeer);
  CHECK_EQ(table->lookup(ipv4(0, 0, 0, 0)), kNoPeer);
  CHECK_EQ(table->peer(198).outer, ipv4(192, 0, 2, 199));
}

TEST("every single prefix length works alone") {
  Random random;
  for (uint32_t length = 0; length <= 32; length++) {
    for (const uint32_t address : {ipv4(10, 5, 77, 129), uint32_t{0}, ~uint32_t{0}}) {
      check_against_linear({{address & mask_of(length), static_cast<uint8_t>(length), 0}}, 1, random);
    }
  }
}

TEST("longer prefixes win over shorter ones around them, at every depth") {
  Random random;
  std::vector<PeerEntry> entries;
  for (uint32_t length = 0; length <= 32; length++) {
    entries.push_back({ipv4(10, 5, 77, 129) & mask_of(length), static_cast<uint8_t>(length), length});
  }
  check_against_linear(entries, 33, random);
  std::reverse(entries.begin(), entries.end());
  check_against_linear(entries, 33, random);
}

TEST("of two entries with the same prefix the last one counts") {
  const auto table =
      build({{ipv4(10, 5, 1, 0), 24, 0}, {ipv4(10, 5, 2, 0), 24, 1}, {ipv4(10, 5, 1, 0), 24, 2}}, std::vector<Peer>(3));
  CHECK_EQ(table->lookup(ipv4(10, 5, 1, 1)), 2U);
  CHECK_EQ(table->lookup(ipv4(10, 5, 2, 1)), 1U);
}

TEST("random tables of any size, spread and mixture of lengths agree with a linear search") {
  Random random;
  for (int round = 0; round < 300 && passing(); round++) {
    const size_t count = 1 + random.below(round % 10 == 0 ? 3000 : 60);
    const uint32_t network_length = static_cast<uint32_t>(random.below(29));
    const uint32_t network = random.word() & mask_of(network_length);
    const bool one_length = random.one_in(3);
    const auto usual = static_cast<uint8_t>(network_length + random.below(33 - network_length));
    std::vector<PeerEntry> entries;
    for (size_t i = 0; i < count; i++) {
      const auto length = one_length ? usual : static_cast<uint8_t>(network_length + random.below(33 - network_length));
      const uint32_t address = network | (random.word() & ~mask_of(network_length));
      entries.push_back({address & mask_of(length), length, static_cast<uint32_t>(random.below(count))});
    }
    check_against_linear(entries, count, random);
  }
}

TEST("100 000 prefixes of every length agree with a linear search, in a few MiB") {
  Random random;
  std::vector<PeerEntry> entries;
  for (uint32_t i = 0; i < 100000; i++) {
    const auto length = static_cast<uint8_t>(8 + random.below(25));
    entries.push_back({random.word() & mask_of(length), length, i});
  }
  check_against_linear(entries, entries.size(), random);
  const auto table = build(entries, std::vector<Peer>(entries.size()));
  CHECK(table->memory_bytes() < size_t{16} << 20);
}

TEST(
    "the usual tables are small: a KiB for a small cluster, about 12 bytes a peer beyond the root for a large "
    "one") {
  std::vector<PeerEntry> small;
  for (uint32_t i = 0; i < 24; i++) small.push_back({ipv4(10, 5, static_cast<uint8_t>(i), 0), 24, i});
  CHECK(build(small, std::vector<Peer>(24))->memory_bytes() < 1200);
  std::vector<PeerEntry> large;
  for (uint32_t i = 0; i < 100000; i++) large.push_back({ipv4(10, 0, 0, 0) + (i << 6), 26, i});
  CHECK(build(large, std::vector<Peer>(100000))->memory_bytes() < size_t{5} << 20);
}

TEST("the memory of a table is that of its parts") {
  const size_t empty = build({}, {})->memory_bytes();
  CHECK_EQ(empty, sizeof(PeerTable) + 2 * sizeof(uint32_t) + 2 * 8);
  CHECK_EQ(build({}, std::vector<Peer>(1000))->memory_bytes() - empty, size_t{1000} * (4 + 4) + (2048 - 2) * 8);
  std::vector<PeerEntry> entries;
  for (uint32_t i = 0; i < 256; i++) entries.push_back({ipv4(10, 5, static_cast<uint8_t>(i), 0), 24, 0});
  const size_t flat = build(entries, std::vector<Peer>(1))->memory_bytes();
  CHECK_EQ(flat - empty, size_t{256 - 2} * 4 + 4 + 4);
  // As many as there are subnets, so that the root alone has the answer.
  std::vector<PeerEntry> many;
  for (uint32_t i = 0; i < 1024; i++) many.push_back({ipv4(10, 4, 0, 0) + (i << 8), 24, 0});
  CHECK_EQ(build(many, std::vector<Peer>(1))->memory_bytes() - empty, size_t{1024 - 2} * 4 + 4 + 4);
  const auto with_hosts = [&](std::vector<PeerEntry> hosts) {
    hosts.insert(hosts.end(), entries.begin(), entries.end());
    return build(hosts, std::vector<Peer>(2))->memory_bytes();
  };
  const PeerEntry first = {ipv4(10, 5, 0, 129), 32, 1};
  const size_t one = with_hosts({first});
  // Each a node of 40 bytes with three runs, unless it is of the peer that has the subnet.
  CHECK_EQ(with_hosts({first, {ipv4(10, 5, 1, 129), 32, 1}, {ipv4(10, 5, 2, 129), 32, 1}}) - one,
           size_t{2} * (40 + 3 * 4));
  CHECK_EQ(with_hosts({first, {ipv4(10, 5, 1, 129), 32, 0}}), one);
}

TEST("entries that cannot be are refused with EINVAL and named") {
  struct Case {
    PeerEntry entry;
    const char* detail;
  };
  for (const Case& c : {Case{{ipv4(10, 5, 1, 0), 33, 0}, "10.5.1.0/33 at peer 0: not a prefix"},
                        Case{{ipv4(10, 5, 1, 1), 24, 0}, "10.5.1.1/24 at peer 0: not a prefix"},
                        Case{{ipv4(10, 5, 1, 0), 24, 1}, "10.5.1.0/24 at peer 1: only 1 peers"}}) {
    const std::vector<PeerEntry> entries = {c.entry};
    const std::vector<Peer> peers(1);
    const auto table = PeerTable::build(entries, peers, 1);
    CHECK(!table.ok());
    CHECK_EQ(table.error().code, EINVAL);
    CHECK_EQ(table.error().detail, c.detail);
  }
}

TEST("more peers than a word has room for are refused with E2BIG, and not looked at") {
  const Peer peer;
  const auto table = PeerTable::build({}, {&peer, size_t{1} << 30}, 1);
  CHECK(!table.ok());
  CHECK_EQ(table.error().code, E2BIG);
  CHECK_EQ(table.error().detail, "1073741824 peers");
}

// Compares with a look at every peer, for those addresses.
void check_outer_against_linear(const std::vector<Peer>& peers, const std::vector<uint32_t>& addresses) {
  const auto table = build({}, peers);
  for (const uint32_t outer : addresses) {
    std::vector<uint32_t> expected;
    for (uint32_t i = 0; i < peers.size(); i++) {
      if (peers[i].outer == outer) expected.push_back(i);
    }
    std::vector<uint32_t> found;
    for (uint32_t i = table->find_outer(outer); i != kNoPeer && found.size() <= peers.size();
         i = table->next_with_same_outer(i)) {
      found.push_back(i);
    }
    CHECK_NOTE(found == expected, show(outer));
    if (!passing()) return;
  }
}

TEST("peers are found by outer address, all of them where several share it") {
  Random random;
  std::vector<Peer> peers;
  for (size_t i = 0; i < 5000; i++) peers.push_back({ipv4(192, 0, 2, 0) + static_cast<uint32_t>(random.below(3000))});
  std::vector<uint32_t> addresses;
  for (uint32_t outer = ipv4(192, 0, 1, 0); outer < ipv4(192, 0, 16, 0); outer++) addresses.push_back(outer);
  check_outer_against_linear(peers, addresses);
}

// Neighbouring addresses never meet in the hash table; these do, and some in its last slot.
TEST("peers anywhere in the address space are found by outer address") {
  Random random;
  std::vector<Peer> peers;
  std::vector<uint32_t> addresses;
  for (size_t i = 0; i < 2000; i++) {
    peers.push_back({addresses.emplace_back(random.word())});
    addresses.push_back(random.word());
  }
  check_outer_against_linear(peers, addresses);
}

TEST("of 100 000 outer addresses each is found without a search among them") {
  std::vector<Peer> peers;
  for (uint32_t i = 0; i < 100000; i++) peers.push_back({ipv4(10, 0, 0, 0) + i});
  const std::clock_t start = std::clock();
  const auto table = build({}, peers);
  for (uint32_t i = 0; i < peers.size() && passing(); i++) CHECK_EQ(table->find_outer(peers[i].outer), i);
  CHECK((std::clock() - start) / CLOCKS_PER_SEC < 5);  // a search takes a minute
}

TEST("0.0.0.0 and 255.255.255.255 are outer addresses like others to the table") {
  const auto table = build({}, {{0}, {~uint32_t{0}}});
  CHECK_EQ(table->find_outer(0), 0U);
  CHECK_EQ(table->find_outer(~uint32_t{0}), 1U);
  CHECK_EQ(table->find_outer(1), kNoPeer);
}

TEST("strict source check: the inner source must lie in a subnet of the sender, whichever of its subnets") {
  const uint32_t a = ipv4(192, 0, 2, 1);
  const uint32_t b = ipv4(192, 0, 2, 2);
  const auto table = build({{ipv4(10, 5, 1, 0), 24, 0},
                            {ipv4(10, 5, 2, 0), 24, 1},
                            {ipv4(10, 5, 3, 0), 24, 2},
                            {ipv4(10, 5, 3, 128), 25, 1}},
                           {{a}, {b}, {a}});
  CHECK(table->is_source_allowed(a, ipv4(10, 5, 1, 9)));
  CHECK(table->is_source_allowed(a, ipv4(10, 5, 3, 9)));
  CHECK(!table->is_source_allowed(a, ipv4(10, 5, 3, 200)));
  CHECK(table->is_source_allowed(b, ipv4(10, 5, 3, 200)));
  CHECK(!table->is_source_allowed(a, ipv4(10, 5, 2, 9)));
  CHECK(!table->is_source_allowed(b, ipv4(10, 5, 1, 9)));
  CHECK(!table->is_source_allowed(a, ipv4(10, 5, 9, 9)));
  CHECK(!table->is_source_allowed(ipv4(192, 0, 2, 3), ipv4(10, 5, 1, 9)));
}

}  // namespace
}  // namespace tsflannel::testing
