// What must hold for every batch, whatever is in it; shared by the tests and the fuzzer.
#pragma once

#include <string>
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

/// Sends `batch` through `coalescer` and gives the items; empty `error` if every invariant held:
/// no packet lost or invented; single packets unchanged and without vnet flags; a merged packet, segmented again by the
/// slow reference, gives back the packets it was made of, in order; order kept inside each flow and, by first packet,
/// over all items; restore() gives back every byte.
std::vector<Written> coalesce(Coalescer& coalescer, const std::vector<Bytes>& batch, std::string& error);

}  // namespace tsflannel::testing
