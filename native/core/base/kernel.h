// The system calls of the data plane behind one interface.
#pragma once

#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

namespace tsflannel {

/// As a timeout: until something happens.
inline constexpr int64_t kForever = -1;

/// The system calls of the data plane, so that tests can count them and let any of them fail.
///
/// Every call gives what the system call gives, or -errno instead of -1 and errno. None blocks except poll().
/// Threads: the implementation keeps no state, so one object serves all.
class Kernel {
 public:
  virtual ~Kernel() = default;

  virtual ssize_t read(int fd, void* buffer, size_t size) = 0;
  virtual ssize_t writev(int fd, const iovec* parts, int count) = 0;
  /// Both always with MSG_DONTWAIT.
  virtual int recvmmsg(int fd, mmsghdr* messages, unsigned count) = 0;
  virtual int sendmmsg(int fd, mmsghdr* messages, unsigned count) = 0;
  /// @param timeout_ns 0 and more, or kForever
  virtual int poll(pollfd* fds, unsigned count, int64_t timeout_ns) = 0;

  virtual int open(const char* path, int flags) = 0;
  virtual int ioctl(int fd, unsigned long request, void* argument) = 0;
  virtual int socket(int domain, int type, int protocol) = 0;
  virtual int bind(int fd, const sockaddr* address, socklen_t size) = 0;
  virtual int connect(int fd, const sockaddr* address, socklen_t size) = 0;
  virtual int setsockopt(int fd, int level, int name, int value) = 0;
  /// @returns the option's value, which must not be negative, or -errno.
  virtual int getsockopt(int fd, int level, int name) = 0;
  virtual int getsockname(int fd, sockaddr* address, socklen_t* size) = 0;
  virtual int bpf(int command, void* attributes, unsigned size) = 0;

  /// How many datagrams the kernel has discarded at a socket, because its queue was full or their checksum wrong
  /// (SO_MEMINFO, Linux 4.12); a train that GRO joined counts as one. Wraps at 2^32.
  virtual int64_t socket_drops(int fd) = 0;
  /// Of the calling thread, see sched_setscheduler(2).
  virtual int set_scheduler(int policy, int priority) = 0;
  /// CPU that the calling thread is on.
  virtual unsigned current_cpu() = 0;
  /// CPUs that the calling thread may be on, see sched_setaffinity(2).
  virtual int get_affinity(cpu_set_t& cpus) = 0;
  virtual int set_affinity(const cpu_set_t& cpus) = 0;
  /// CPU time that the calling thread has used.
  virtual uint64_t thread_cpu_ns() = 0;
};

/// The kernel of this host.
Kernel& host_kernel();

}  // namespace tsflannel
