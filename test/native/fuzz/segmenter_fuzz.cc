// Input: 10 bytes of vnet header, then the packet. What is accepted must equal the slow reference; what is refused must
// be unchanged; and nothing may be accepted that the reference refuses.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "../../../native/core/offload/segmenter.h"
#include "../support/packets.h"

using namespace tsflannel;
using namespace tsflannel::testing;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < kVnetHeaderSize) return 0;
  VnetHeader vnet;
  std::memcpy(&vnet, data, kVnetHeaderSize);
  const Bytes packet(data + kVnetHeaderSize, data + size);
  // Exactly as long as the packet, for the sanitizer.
  const auto memory = std::make_unique<uint8_t[]>(packet.size());
  std::copy(packet.begin(), packet.end(), memory.get());
  const std::span<uint8_t> span(memory.get(), packet.size());

  Segmenter segmenter;
  const SegmentStatus status = segmenter.begin(vnet, span);
  const auto expected = slow_segment(vnet, packet);
  if (vnet.gso_type != kGsoNone) require(expected.has_value() == (status == SegmentStatus::kOk));
  if (status != SegmentStatus::kOk) {
    require(std::equal(packet.begin(), packet.end(), memory.get()));
    return 0;
  }
  require(segmenter.count() >= 1 && segmenter.last_length() <= segmenter.segment_length());

  // Parts of a size that the input chooses, each into memory of exactly the promised size.
  const size_t step = 1 + size % 64;
  const size_t per = segmenter.iovecs_per_segment();
  for (size_t first = 0; first < segmenter.count(); first += step) {
    const size_t n = std::min(step, segmenter.count() - first);
    const auto headers = std::make_unique<uint8_t[]>(n * segmenter.header_length());
    const auto iovecs = std::make_unique<iovec[]>(n * per);
    require(segmenter.emit(first, n, headers.get(), iovecs.get()) == n * per);
    if (vnet.gso_type == kGsoNone) continue;
    for (size_t i = 0; i < n; i++) {
      require(gather({iovecs.get() + i * per, per}) == expected->at(first + i));
    }
  }
  if (vnet.gso_type == kGsoNone) {
    require(segmenter.count() == 1);
    if ((vnet.flags & kVnetNeedsChecksum) == 0) require(std::equal(packet.begin(), packet.end(), memory.get()));
  } else {
    require(segmenter.count() == expected->size());
  }
  return 0;
}
