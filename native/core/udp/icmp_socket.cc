#include "icmp_socket.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <utility>

namespace tsflannel {

Result<UniqueFd> open_icmp_socket(Kernel& kernel) {
  const int opened = kernel.socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_RAW);
  if (opened < 0) return Error{kOpenIcmpStep, -opened, ""};
  UniqueFd fd(opened);
  // Packets of protocol 255 arrive here, and nobody reads them: keep the kernel from storing what strangers send.
  if (const int failed = kernel.setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, 1); failed < 0) {
    return Error{"SO_RCVBUF", -failed, ""};
  }
  return fd;
}

}  // namespace tsflannel
