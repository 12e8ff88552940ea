// Which queue of a TUN a packet leaves through.
#pragma once

#include "../base/kernel.h"
#include "../base/result.h"

namespace tsflannel {

/// Spreads the flows of the multi-queue TUN behind `queue` over its queues by addresses and, for TCP, ports, with an
/// eBPF program (TUNSETSTEERINGEBPF, Linux 4.16).
///
/// Without it the kernel moves every flow to the queue that its answers are written to (tun_flow_update()). All
/// datagrams of one peer arrive at one socket, so all flows with a peer would end up with one worker, in both
/// directions. The device works either way.
[[nodiscard]] Result<void> spread_flows(Kernel& kernel, int queue);

}  // namespace tsflannel
