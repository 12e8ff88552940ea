// The raw socket that ICMP errors leave through.
#pragma once

#include "../base/kernel.h"
#include "../base/result.h"
#include "../base/unique_fd.h"

namespace tsflannel {

/// Operation in the errors of open_icmp_socket() that tunnelError() in src/dataplane/tunnel-errors.ts knows.
inline constexpr const char* kOpenIcmpStep = "open-icmp";

/// Opens a socket for whole IPv4 packets (raw(7), IP_HDRINCL), which needs CAP_NET_RAW.
///
/// An error that was written to the TUN would come in with an address of this host as its source, and the kernel takes
/// that for spoofed (fib_validate_source()) unless the device has accept_local=1, which would let every peer send with
/// such a source as well. Out of a socket it takes the way of the kernel's own ICMP errors.
[[nodiscard]] Result<UniqueFd> open_icmp_socket(Kernel& kernel);

}  // namespace tsflannel
