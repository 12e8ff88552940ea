#include "../../../native/core/packet/checksum.h"

#include <algorithm>
#include <memory>

#include "../support/packets.h"

namespace tsflannel::testing {
namespace {

constexpr size_t kLengths = 4096;
constexpr size_t kOffsets = 16;

// Slow sums of every prefix of `data`, built up byte by byte.
std::vector<uint16_t> prefix_sums(std::span<const uint8_t> data, uint16_t initial) {
  std::vector<uint16_t> sums = {initial};
  uint32_t sum = initial;
  for (size_t i = 0; i < data.size(); i++) {
    sum += i % 2 == 0 ? uint32_t{data[i]} << 8 : data[i];
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
    sums.push_back(static_cast<uint16_t>(sum));
  }
  return sums;
}

void check_every_length_and_offset(const Bytes& source, uint64_t initial, uint16_t folded_initial) {
  // A buffer without slack behind it, so that the sanitizer sees a read past the end.
  for (size_t offset = 0; offset < kOffsets && passing(); offset++) {
    const auto buffer = std::make_unique<uint8_t[]>(kOffsets + kLengths);
    std::copy_n(source.begin(), kLengths, buffer.get() + offset);
    const std::vector<uint16_t> expected = prefix_sums({buffer.get() + offset, kLengths}, folded_initial);
    for (size_t length = 0; length <= kLengths; length++) {
      const uint16_t fast = fold_sum(sum_bytes(buffer.get() + offset, length, initial));
      const uint16_t portable = fold_sum(sum_bytes_portable(buffer.get() + offset, length, initial));
      if (fast == expected[length] && portable == expected[length]) continue;
      CHECK_EQ_NOTE(fast, expected[length], "offset " + show(offset) + " length " + show(length));
      CHECK_EQ_NOTE(portable, expected[length], "offset " + show(offset) + " length " + show(length));
      break;
    }
  }
}

TEST("sum_bytes agrees with a 16-bit loop on every length 0…4096 and offset 0…15") {
  check_every_length_and_offset(pattern(kLengths, 7), 0, 0);
}

TEST("sum_bytes agrees with a 16-bit loop on all-ones, where every carry happens") {
  check_every_length_and_offset(Bytes(kLengths, 0xff), 0, 0);
}

TEST("sum_bytes of zeros is zero, so that the two representations of zero stay apart") {
  check_every_length_and_offset(Bytes(kLengths, 0), 0, 0);
}

TEST("sum_bytes adds to an initial sum, up to the largest one") {
  check_every_length_and_offset(pattern(kLengths, 99), 0xffff, 0xffff);
  check_every_length_and_offset(pattern(kLengths, 100), 0x1'2345'6789, fold_sum(0x1'2345'6789));
  check_every_length_and_offset(pattern(kLengths, 101), ~uint64_t{0}, 0xffff);
}

TEST("sum_bytes does not read past the end of the buffer") {
  for (size_t length = 1; length <= 600; length++) {
    const auto exact = std::make_unique<uint8_t[]>(length);
    const Bytes source = pattern(length);
    std::copy(source.begin(), source.end(), exact.get());
    CHECK_EQ(fold_sum(sum_bytes(exact.get(), length)), slow_sum(source));
  }
}

TEST("sums of pieces add up to the sum of the whole when all but the last are even") {
  Random random;
  const Bytes data = pattern(3001);
  const uint16_t whole = slow_sum(data);
  for (int round = 0; round < 2000; round++) {
    const size_t first = random.below(1500) * 2;
    uint64_t sum = sum_bytes(data.data(), first);
    sum = sum_bytes(data.data() + first, data.size() - first, sum);
    CHECK_EQ(fold_sum(sum), whole);
  }
}

TEST("sum_words agrees with the 16-bit loop on every header length") {
  const Bytes data = pattern(60, 3);
  for (size_t words = 0; words <= 15; words++) {
    CHECK_EQ(fold_sum(sum_words(data.data(), words)), slow_sum(std::span(data).subspan(0, words * 4)));
  }
}

TEST("add_sums carries around the end, and fold_sum keeps every 64-bit value's residue") {
  CHECK_EQ(add_sums(~uint64_t{0}, 1), 1U);
  CHECK_EQ(add_sums(~uint64_t{0}, ~uint64_t{0}), ~uint64_t{0});
  Random random;
  for (int round = 0; round < 100000; round++) {
    const uint64_t a = random.next();
    const uint64_t b = round % 3 == 0 ? ~uint64_t{0} - random.below(5) : random.next();
    CHECK_EQ(fold_sum(a) % 0xffff, a % 0xffff);
    CHECK_EQ(fold_sum(add_sums(a, b)) % 0xffff, (a % 0xffff + b % 0xffff) % 0xffff);
    CHECK_EQ(fold_sum(a) == 0, a == 0);
    if (!passing()) break;
  }
}

TEST("the example of RFC 1071 section 3 gives the published sum") {
  const Bytes data = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
  CHECK_EQ(fold_sum(sum_bytes(data.data(), data.size())), 0xddf2);
  CHECK_EQ(finish_checksum(sum_bytes(data.data(), data.size())), 0x220d);
}

TEST("a UDP checksum that comes out as 0 is sent as 0xffff") {
  CHECK_EQ(finish_checksum(0xffff), 0);
  CHECK_EQ(finish_udp_checksum(0xffff), 0xffff);
  CHECK_EQ(finish_udp_checksum(0xfffe), 1);
}

TEST("the pseudo header's sum agrees with a slow sum of its bytes") {
  Random random;
  for (int round = 0; round < 1000; round++) {
    const uint32_t source = random.word();
    const uint32_t destination = random.word();
    const uint8_t protocol = random.byte();
    const auto length = static_cast<uint16_t>(random.word());
    Bytes bytes(12);
    put32(bytes, 0, source);
    put32(bytes, 4, destination);
    bytes[9] = protocol;
    put16(bytes, 10, length);
    CHECK_EQ(fold_sum(pseudo_header_sum(source, destination, protocol, length)), slow_sum(bytes));
  }
}

TEST("an incremental update equals a new checksum for every word that changes (RFC 1624)") {
  Random random;
  // Section 4 of the RFC: equation 2 would give 0xffff here.
  CHECK_EQ(update_checksum(0xdd2f, 0x5555, 0x3285), 0x0000);
  for (int round = 0; round < 20000; round++) {
    Bytes header = pattern(20, random.word());
    header[0] = 0x45;
    fill_ip_checksum(header);
    const size_t at = 2 + random.below(4) * 2;
    const uint16_t before = get16(header, at);
    const auto after = static_cast<uint16_t>(random.word());
    const uint16_t updated = update_checksum(get16(header, 10), before, after);
    put16(header, at, after);
    fill_ip_checksum(header);
    CHECK_EQ(updated, get16(header, 10));
    if (!passing()) break;
  }
}

}  // namespace
}  // namespace tsflannel::testing
