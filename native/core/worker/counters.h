// Running totals that one worker writes and anybody reads.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "../packet/drop_reason.h"
#include "../packet/icmp.h"

namespace tsflannel {

/// A number with one writer. Not an atomic read-modify-write, so adding costs what it costs on a plain integer.
class Counter {
 public:
  void add(uint64_t amount) {
    value_.store(value_.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  [[nodiscard]] uint64_t get() const { return value_.load(std::memory_order_relaxed); }
  void reset() { value_.store(0, std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

/// Buckets of a Histogram; BATCH_BUCKETS in src/dataplane/tunnel.ts.
inline constexpr size_t kBatchBuckets = 9;

/// How many packets one system call carried: 1, 2, 3–4, 5–8, … 65–128, more.
struct Histogram {
  std::array<Counter, kBatchBuckets> buckets;

  void add(size_t packets) {
    if (packets == 0) return;
    const auto bucket = static_cast<size_t>(std::bit_width(packets - 1));
    buckets[std::min(bucket, kBatchBuckets - 1)].add(1);
  }
};

/// Totals of one worker; on cache lines of its own, so that workers do not slow each other down.
struct alignas(64) WorkerCounters {
  Counter tx_packets;
  Counter tx_bytes;
  Counter rx_packets;
  Counter rx_bytes;
  Counter tun_reads;
  Counter tun_writes;
  Counter socket_sends;
  Counter socket_receives;
  Counter icmp_limited;
  Counter icmp_failed;
  std::array<Counter, kIcmpErrorCount> icmp_sent;
  std::array<Counter, kDropReasonCount> drops;
  Histogram packets_per_read;
  Histogram packets_per_send;
  Histogram packets_per_write;

  void drop(DropReason reason, size_t packets = 1) { drops[static_cast<size_t>(reason)].add(packets); }
};

/// Totals of one peer at one worker.
struct PeerCounters {
  Counter tx_packets;
  Counter tx_bytes;
  Counter rx_packets;
  Counter rx_bytes;
};

/// Peer counters of one worker by slot. A slot belongs to a public address for as long as peers with it are in the
/// forwarding table, whatever else changes there.
///
/// Threads: the control thread calls ensure(), before it publishes the first table that names the slot; at() may be
/// called by the worker for slots of the table it has adopted, and by the control thread for all.
class PeerCounterTable {
 public:
  /// As many public addresses as a /12 has.
  static constexpr uint32_t kMaxSlots = 1U << 20;

  void ensure(uint32_t slot) {
    std::unique_ptr<PeerCounters[]>& chunk = chunks_[slot / kChunk];
    if (chunk == nullptr) chunk = std::make_unique<PeerCounters[]>(kChunk);
  }
  [[nodiscard]] PeerCounters& at(uint32_t slot) { return chunks_[slot / kChunk][slot % kChunk]; }

 private:
  static constexpr uint32_t kChunk = 256;
  std::array<std::unique_ptr<PeerCounters[]>, kMaxSlots / kChunk> chunks_;
};

}  // namespace tsflannel
