#include "../../../native/core/udp/send_batch.h"

#include <array>

#include "../support/packets.h"

namespace tsflannel::testing {
namespace {

const Destination kA = {.outer = ipv4(192, 0, 2, 2), .counter_slot = 1};
const Destination kB = {.outer = ipv4(192, 0, 2, 3), .counter_slot = 2};

/// Adds one packet; false if the batch is full.
bool add(SendBatch& batch, const Destination& to, size_t length, bool may_segment = true) {
  static std::array<uint8_t, 65536> memory{};
  const SendBatch::Room room = batch.reserve(to, length, 1, may_segment);
  if (room.packets == 0) return false;
  room.parts[0] = {memory.data(), length};
  batch.commit(room, 1, length, 1);
  return true;
}

TEST("a message ends at 64 packets and at the largest UDP payload") {
  SendBatch batch(8285);
  for (int i = 0; i < 65; i++) add(batch, kA, 100);
  CHECK_EQ(batch.size(), 2);
  CHECK_EQ(batch.entry(0).packets, 64);

  batch.clear();
  for (int i = 0; i < 45; i++) add(batch, kA, 1472);
  CHECK_EQ(batch.entry(0).packets, 44);
  CHECK_EQ(batch.entry(0).bytes, 44 * 1472);
  CHECK_EQ(batch.size(), 2);
}

TEST("asking for many packets gives room for as many as one message takes") {
  SendBatch batch(8285);
  CHECK_EQ(batch.reserve(kA, 1472, 100, true).packets, 44);
  CHECK_EQ(batch.reserve(kB, 100, 100, true).packets, 64);
  CHECK_EQ(batch.reserve(kA, 100, 100, false).packets, 1);
  CHECK_EQ(batch.reserve(kA, 65507, 100, true).packets, 1);
}

TEST("a shorter packet ends its message, a longer one starts a new one, and order is kept") {
  SendBatch batch(8285);
  add(batch, kA, 100);
  add(batch, kA, 50);
  add(batch, kA, 50);
  add(batch, kA, 100);
  CHECK_EQ(batch.size(), 3);
  CHECK_EQ(batch.entry(0).packets, 2);
  CHECK_EQ(batch.entry(1).packets, 1);
  CHECK_EQ(batch.entry(2).packets, 1);
}

TEST("only the peer's latest message grows") {
  SendBatch batch(8285);
  add(batch, kA, 100);
  add(batch, kB, 100);
  add(batch, kA, 200);
  add(batch, kA, 100);  // ends the message of 200
  add(batch, kA, 100);
  add(batch, kB, 100);
  CHECK_EQ(batch.size(), 4);
  CHECK_EQ(batch.entry(0).packets, 1);
  CHECK_EQ(batch.entry(1).packets, 2);
  CHECK_EQ(batch.entry(2).packets, 2);
  CHECK_EQ(batch.entry(3).packets, 1);
}

TEST("a full batch takes no more") {
  SendBatch batch(8285);
  for (size_t i = 0; i < kMaxEntries; i++) CHECK(add(batch, kA, 100, false));
  CHECK(!add(batch, kA, 100, false));
  CHECK(!add(batch, kB, 100, true));
}

}  // namespace
}  // namespace tsflannel::testing
