// What must hold for every batch, whatever is in it; shared by the tests and the fuzzer.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "../../../native/core/offload/coalescer.h"
#include "packets.h"

namespace tsflannel::testing {

/// One item as it would reach the TUN.
struct Written {
  VnetHeader vnet;
  Bytes packet;
  size_t packets;
};

/// What two packets have in common between which no packet may overtake: addresses, protocol and, where there are any,
/// ports.
using FlowKey = std::tuple<uint32_t, uint32_t, uint8_t, uint32_t>;
FlowKey flow_of(const Bytes& packet);

/// The packet without what a merged one does not keep: under DF the IP ID carries no meaning (RFC 6864 section 4.1).
Bytes without_meaningless_id(Bytes packet);

/// What is wrong with a merged packet behind this vnet header, as the kernel would see it; empty if nothing.
std::string fault_of_merged(const VnetHeader& vnet, const Bytes& packet);

/// Sends `batch` through `coalescer` and gives the items; empty `error` if every invariant held:
/// no packet lost or invented; single packets unchanged and without vnet flags; a merged packet, segmented again by the
/// slow reference, gives back the packets it was made of, in order; order kept inside each flow and, by first packet,
/// over all items; restore() gives back every byte.
std::vector<Written> coalesce(Coalescer& coalescer, const std::vector<Bytes>& batch, std::string& error);

}  // namespace tsflannel::testing
