#include "../../../native/core/udp/receive_ring.h"

#include <vector>

#include "../worker/fake_kernel.h"

namespace tsflannel::testing {
namespace {

Inbound inbound(size_t bytes, uint32_t start, int segment_length = 0) {
  return {.outer = ipv4(192, 0, 2, 2), .data = pattern(bytes, start), .segment_length = segment_length};
}

bool is(const ReceivedMessage& message, const Inbound& expected) {
  return Bytes(message.data.begin(), message.data.end()) == expected.data;
}

TEST("every buffer holds the largest that UDP_GRO brings, and none runs into the next") {
  FakeKernel kernel;
  ReceiveRing ring;
  std::vector<Inbound> sent;
  for (uint32_t i = 0; i < ReceiveRing::kMessages; i++) sent.push_back(inbound(65535, i, 1472));
  kernel.inbound.assign(sent.begin(), sent.end());
  CHECK_EQ(ring.receive(kernel, kSocketFd, ReceiveRing::kMessages), ReceiveRing::kMessages);
  for (size_t i = 0; i < sent.size(); i++) CHECK_NOTE(is(ring.message(i), sent[i]), show(i));
}

TEST("bulk is received into two buffers at a time, small datagrams into all") {
  FakeKernel kernel;
  ReceiveRing ring;
  const auto receive = [&](size_t limit) {
    const int received = ring.receive(kernel, kSocketFd, limit);
    CHECK(received <= static_cast<int>(ring.offered()));
    return received;
  };
  for (uint32_t i = 0; i < 5; i++) kernel.inbound.push_back(inbound(i == 4 ? 60000 : 100, i));
  CHECK_EQ(receive(ReceiveRing::kMessages), 5);
  CHECK_EQ(ring.offered(), ReceiveRing::kMessages);
  for (uint32_t i = 0; i < 40; i++) kernel.inbound.push_back(inbound(100, i));
  CHECK_EQ(receive(ReceiveRing::kMessages), 2);
  CHECK_EQ(receive(ReceiveRing::kMessages), 32);
  CHECK_EQ(receive(1), 1);
  CHECK_EQ(ring.offered(), 1);
  CHECK_EQ(receive(ReceiveRing::kMessages), 5);
  CHECK_EQ(receive(ReceiveRing::kMessages), -EAGAIN);
}

TEST("a message says who sent it and where its datagrams end") {
  FakeKernel kernel;
  ReceiveRing ring;
  kernel.inbound = {inbound(3000, 0, 1472), inbound(700, 1), inbound(0, 2)};
  CHECK_EQ(ring.receive(kernel, kSocketFd, ReceiveRing::kMessages), 3);
  CHECK_EQ(ring.message(0).segment_length, 1472);
  CHECK_EQ(ring.message(1).segment_length, 700);
  CHECK_EQ(ring.message(2).segment_length, 1);
  for (size_t i = 0; i < 3; i++) CHECK_EQ(ring.message(i).outer_source, ipv4(192, 0, 2, 2));
  // A buffer that held several datagrams before is one datagram again.
  kernel.inbound = {inbound(2000, 3)};
  CHECK_EQ(ring.receive(kernel, kSocketFd, 1), 1);
  CHECK_EQ(ring.message(0).segment_length, 2000);
}

}  // namespace
}  // namespace tsflannel::testing
