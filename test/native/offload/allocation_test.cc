// The packet path must not allocate: every operator new, malloc, calloc and realloc that this program calls is counted
// here, whichever thread calls it.
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>

#include "../../../native/core/offload/coalescer.h"
#include "../../../native/core/offload/segmenter.h"
#include "../../../native/core/packet/icmp.h"
#include "../../../native/core/packet/rate_limit.h"
#include "../../../native/core/peers/peer_table.h"
#include "../support/allocation_count.h"
#include "../support/packets.h"

namespace {

std::atomic<size_t> allocations{0};

}  // namespace

// The linker's --wrap sends the calls here; see the Makefile.
extern "C" {
void* __real_malloc(size_t size);
void* __real_calloc(size_t count, size_t size);
void* __real_realloc(void* memory, size_t size);

void* __wrap_malloc(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __real_malloc(size);
}
void* __wrap_calloc(size_t count, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __real_calloc(count, size);
}
void* __wrap_realloc(void* memory, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __real_realloc(memory, size);
}
}

namespace {

void* counted(size_t size) {
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) std::abort();
  return memory;
}

void* counted(size_t size, std::align_val_t alignment) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  const auto bytes = static_cast<size_t>(alignment);
  void* memory = std::aligned_alloc(bytes, (size + bytes - 1) / bytes * bytes);
  if (memory == nullptr) std::abort();
  return memory;
}

}  // namespace

size_t tsflannel::testing::allocation_count() {
  return allocations.load();
}

void* operator new(size_t size) {
  return counted(size);
}
void* operator new[](size_t size) {
  return counted(size);
}
void* operator new(size_t size, std::align_val_t alignment) {
  return counted(size, alignment);
}
void* operator new[](size_t size, std::align_val_t alignment) {
  return counted(size, alignment);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace tsflannel::testing {
namespace {

TEST("the allocation counter counts") {
  // Once each, whatever the compiler makes of it: the memory is used.
  const auto costs = [](auto allocate) {
    const size_t before = allocations.load();
    allocate();
    return allocations.load() - before;
  };
  struct alignas(64) Aligned {
    uint8_t bytes[64];
  };
  CHECK_EQ(costs([] { CHECK_EQ(Bytes(100).size(), 100U); }), 1U);
  CHECK_EQ(costs([] { CHECK(reinterpret_cast<uintptr_t>(std::make_unique<Aligned>().get()) % 64 == 0); }), 1U);
  void* volatile memory = nullptr;
  CHECK_EQ(costs([&memory] { memory = std::malloc(10); }), 1U);
  CHECK_EQ(costs([&memory] { memory = std::realloc(memory, 1000); }), 1U);
  std::free(memory);
  CHECK_EQ(costs([&memory] { memory = std::calloc(10, 10); }), 1U);
  std::free(memory);
}

TEST("segmenting, coalescing, looking up, and building ICMP errors allocate nothing") {
  Bytes super = make_tcp({}, {.options = timestamps(1, 2)}, pattern(60000));
  Bytes uso = make_udp({}, {}, pattern(60000));
  std::vector<Bytes> batch;
  for (uint32_t i = 0; i < 200; i++) {
    batch.push_back(
        make_tcp({}, {.source_port = static_cast<uint16_t>(i % 20), .sequence = i / 20 * 500}, pattern(500)));
  }
  std::vector<PeerEntry> entries;
  for (uint32_t i = 0; i < 1000; i++) entries.push_back({i << 12, static_cast<uint8_t>(20 + i % 13), i});
  const auto table = PeerTable::build(entries, std::vector<Peer>(1000), 1);
  CHECK(table.ok());
  Segmenter segmenter;
  Coalescer coalescer(batch.size());
  RateLimit limit(10, 10);
  std::vector<uint8_t> headers(128 * 64);
  std::vector<iovec> iovecs(128);
  uint8_t icmp[kIcmpMaxError];

  const size_t before = allocations.load();
  size_t sink = 0;
  for (int round = 0; round < 3; round++) {
    for (Bytes* packet : {&super, &uso}) {
      const bool tcp = packet == &super;
      const VnetHeader vnet = {1, tcp ? kGsoTcpV4 : kGsoUdpL4, 0, 1400, 20, static_cast<uint16_t>(tcp ? 16 : 6)};
      if (segmenter.begin(vnet, *packet) != SegmentStatus::kOk) std::abort();
      sink += segmenter.emit(0, segmenter.count(), headers.data(), iovecs.data());
    }
    for (Bytes& packet : batch) {
      if (!coalescer.add(packet)) std::abort();
    }
    coalescer.finish();
    for (size_t i = 0; i < coalescer.size(); i++) {
      sink += coalescer.item(i).iovecs.size();
      const size_t packets = coalescer.restore(i);
      for (size_t nth = 0; nth < packets; nth++) sink += coalescer.original(i, nth).size();
    }
    coalescer.reset();
    for (uint32_t i = 0; i < 1000; i++) {
      sink += table.value()->lookup(i << 12) + table.value()->find_outer(i);
      sink += table.value()->is_source_allowed(i, i << 12) ? 1 : 0;
    }
    Ipv4View ip;
    if (parse_ipv4(batch[0], ip) != DropReason::kNone || !may_send_icmp_error(IcmpError::kTimeExceeded, ip))
      std::abort();
    sink += build_icmp_error(icmp, IcmpError::kTimeExceeded, 1, ip);
    sink += limit.take(1) ? 1 : 0;
  }
  CHECK_EQ(allocations.load() - before, 0U);
  CHECK(sink != 0);
}

}  // namespace
}  // namespace tsflannel::testing
