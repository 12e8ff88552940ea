// Input: a program that builds a batch. Each instruction takes the next packet of one of four flows, changes it as the
// input says, and leaves its checksums right or not. All invariants of support/coalescer_model.h must hold.
#include <algorithm>

#include "../support/coalescer_model.h"
#include "../support/fuzz_input.h"

using namespace tsflannel;
using namespace tsflannel::testing;

namespace {

struct Stream {
  Ip ip;
  Tcp tcp;
  uint32_t position = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  const uint8_t switches = input.byte();
  CoalescerOptions options = {.merge_tcp = (switches & 1) == 0,
                              .merge_udp = (switches & 2) == 0,
                              .max_bytes = (switches & 4) != 0 ? size_t{input.byte()} * 16 : 65535,
                              .max_segments = (switches & 8) != 0 ? size_t{input.byte()} : 64};
  Stream streams[4];
  for (int i = 0; i < 4; i++) {
    streams[i].tcp.source_port = static_cast<uint16_t>(40000 + i / 2);
    streams[i].ip.fragment = i % 2 == 0 ? 0x4000 : 0;
  }
  const size_t usual = 1 + input.byte() % 64U;
  std::vector<Bytes> batch;
  while (!input.empty() && batch.size() < 200) {
    const uint8_t instruction = input.byte();
    if (instruction == 0xff) {
      Bytes raw = input.bytes(1 + input.byte() % 80U);
      if (!raw.empty()) batch.push_back(std::move(raw));
      continue;
    }
    Stream& s = streams[instruction & 3];
    const bool udp = (instruction & 4) != 0;
    const size_t length = (instruction & 8) != 0 ? input.byte() % 70U : usual;
    if (udp) s.tcp.options.clear();
    Bytes packet = udp ? make_udp(s.ip, {s.tcp.source_port, 53, (instruction & 16) == 0}, pattern(length, s.position))
                       : make_tcp(s.ip, s.tcp, pattern(length, s.position));
    s.position += static_cast<uint32_t>(length);
    s.tcp.sequence += static_cast<uint32_t>(length);
    s.ip.id++;
    if ((instruction & 32) != 0) {
      // A changed header byte; half of the time with checksums made right again, which is the harder case.
      const uint8_t where = input.byte();
      packet[where % std::min<size_t>(packet.size(), 60)] = input.byte();
      if (where >= 128 && packet[0] == 0x45 && (packet[9] == 6 || packet[9] == 17)) {
        fill_ip_checksum(packet);
        if (packet.size() >= 40) fill_l4_checksum(packet);
      }
    }
    if ((instruction & 64) != 0) s.tcp.options = timestamps(input.byte() % 4U, 1);
    if ((instruction & 128) != 0) s.tcp.flags = input.byte();
    batch.push_back(std::move(packet));
  }

  Coalescer coalescer(256, options);
  std::string error;
  coalesce(coalescer, batch, error);
  require(error.empty(), error);
  return 0;
}
