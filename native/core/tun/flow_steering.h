// Which queue of a TUN a packet leaves through.
#pragma once

#include "../base/kernel.h"
#include "../base/result.h"

namespace tsflannel {

/// Queues that one worker reads, its lanes: the second is for TCP, the first for everything else.
///
/// TCP fills a queue until something stops it, and what is not TCP would wait behind that: in the slow start of one
/// connection, milliseconds. A lane for each of several groups of TCP flows makes no measurable difference, and costs a
/// system call whenever the worker looks for packets.
inline constexpr unsigned kLanesPerWorker = 2;

/// Lets an eBPF program (TUNSETSTEERINGEBPF, Linux 4.16) choose among the queues of the TUN behind `queue`: the worker
/// by addresses and, for TCP, ports; then its lane. The lanes of one worker are neighbours.
///
/// Without the program the kernel moves every flow to the queue that its answers are written to (tun_flow_update()).
/// All datagrams of one peer arrive at one socket, so all flows with a peer would end up with one worker, in both
/// directions; and between two queues of one worker packets would overtake each other.
/// @param workers that share the device, at least 1
[[nodiscard]] Result<void> steer_flows(Kernel& kernel, int queue, unsigned workers);

}  // namespace tsflannel
