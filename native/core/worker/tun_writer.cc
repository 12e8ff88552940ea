#include "tun_writer.h"

#include <cerrno>

#include "../packet/ipv4.h"

namespace tsflannel {
namespace {

// A TUN has an unlimited send buffer unless somebody set TUNSETSNDBUF, so this is all but unused; while it waits, the
// other direction of the worker waits too.
constexpr int kBlockedWaits = 2;
constexpr int64_t kBlockedWaitNs = 1'000'000;

DropReason reason_for(int code) {
  return code == EAGAIN || code == ENOBUFS ? DropReason::kTunBlocked : DropReason::kTunError;
}

}  // namespace

bool is_dead_descriptor(int code) {
  return code == EBADF || code == EBADFD || code == ENODEV || code == ENXIO || code == ENOTSOCK;
}

void TunWriter::write(Coalescer& coalescer) {
  coalescer.finish();
  for (size_t index = 0; index < coalescer.size(); index++) {
    const CoalescedItem item = coalescer.item(index);
    const int result = write_parts(item.iovecs);
    if (result == -EINVAL && item.merged()) {
      // The first packet of the item begins after the vnet header; its protocol tells which kind of merging failed.
      const auto* header = static_cast<const uint8_t*>(item.iovecs[1].iov_base);
      const bool is_tcp = header[kIpv4Protocol] == kProtocolTcp;
      context_.health.downgrade(is_tcp ? Offload::kTcpMerge : Offload::kUdpMerge, "writev", EINVAL, monotonic_ns());
      write_originals(coalescer, index);
      continue;
    }
    count(result, item.packets, item.inner_bytes);
  }
  coalescer.reset();
}

void TunWriter::write_originals(Coalescer& coalescer, size_t item) {
  const size_t packets = coalescer.restore(item);
  for (size_t nth = 0; nth < packets; nth++) {
    const std::span<const iovec> parts = coalescer.original(item, nth);
    const size_t bytes = parts[1].iov_len;
    count(write_parts(parts), 1, bytes);
  }
}

int TunWriter::write_parts(std::span<const iovec> parts) {
  if (!context_.has_vnet_header) parts = parts.subspan(1);
  for (int waits = 0;;) {
    context_.counters.tun_writes.add(1);
    const ssize_t written = context_.kernel.writev(context_.tun(), parts.data(), static_cast<int>(parts.size()));
    if (written >= 0) return 0;
    const auto code = static_cast<int>(-written);
    if (code == EINTR) continue;
    if ((code == EAGAIN || code == ENOBUFS) && waits < kBlockedWaits) {
      waits++;
      pollfd writable{context_.tun(), POLLOUT, 0};
      (void)context_.kernel.poll(&writable, 1, kBlockedWaitNs);
      continue;
    }
    if (is_dead_descriptor(code)) context_.fail("write to the TUN", code);
    return -code;
  }
}

void TunWriter::count(int result, size_t packets, size_t bytes) {
  WorkerCounters& counters = context_.counters;
  if (result < 0) {
    counters.drop(reason_for(-result), packets);
    return;
  }
  counters.rx_packets.add(packets);
  counters.rx_bytes.add(bytes);
  counters.packets_per_write.add(packets);
}

}  // namespace tsflannel
