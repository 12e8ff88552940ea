#include "kernel.h"

#include <fcntl.h>
#include <linux/sock_diag.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <ctime>

namespace tsflannel {
namespace {

constexpr int64_t kSecond = 1'000'000'000;  // in ns

template <typename T>
T negative_errno(T result) {
  return result < 0 ? static_cast<T>(-errno) : result;
}

class HostKernel final : public Kernel {
 public:
  ssize_t read(int fd, void* buffer, size_t size) override { return negative_errno(::read(fd, buffer, size)); }

  ssize_t writev(int fd, const iovec* parts, int count) override { return negative_errno(::writev(fd, parts, count)); }

  int recvmmsg(int fd, mmsghdr* messages, unsigned count) override {
    return negative_errno(::recvmmsg(fd, messages, count, MSG_DONTWAIT, nullptr));
  }

  int sendmmsg(int fd, mmsghdr* messages, unsigned count) override {
    return negative_errno(::sendmmsg(fd, messages, count, MSG_DONTWAIT));
  }

  int poll(pollfd* fds, unsigned count, int64_t timeout_ns) override {
    const timespec timeout{.tv_sec = timeout_ns / kSecond, .tv_nsec = timeout_ns % kSecond};
    return negative_errno(::ppoll(fds, count, timeout_ns < 0 ? nullptr : &timeout, nullptr));
  }

  int open(const char* path, int flags) override { return negative_errno(::open(path, flags)); }

  int ioctl(int fd, unsigned long request, void* argument) override {
    return negative_errno(::ioctl(fd, request, argument));
  }

  int socket(int domain, int type, int protocol) override { return negative_errno(::socket(domain, type, protocol)); }

  int bind(int fd, const sockaddr* address, socklen_t size) override {
    return negative_errno(::bind(fd, address, size));
  }

  int connect(int fd, const sockaddr* address, socklen_t size) override {
    return negative_errno(::connect(fd, address, size));
  }

  int setsockopt(int fd, int level, int name, int value) override {
    return negative_errno(::setsockopt(fd, level, name, &value, sizeof value));
  }

  int getsockopt(int fd, int level, int name) override {
    int value = 0;
    socklen_t size = sizeof value;
    return ::getsockopt(fd, level, name, &value, &size) < 0 ? -errno : value;
  }

  int getsockname(int fd, sockaddr* address, socklen_t* size) override {
    return negative_errno(::getsockname(fd, address, size));
  }

  int bpf(int command, void* attributes, unsigned size) override {
    return static_cast<int>(negative_errno(::syscall(SYS_bpf, command, attributes, size)));
  }

  int64_t socket_drops(int fd) override {
    std::array<uint32_t, SK_MEMINFO_VARS> values{};
    socklen_t size = sizeof values;
    return ::getsockopt(fd, SOL_SOCKET, SO_MEMINFO, values.data(), &size) < 0 ? -errno : values[SK_MEMINFO_DROPS];
  }

  int set_scheduler(int policy, int priority) override {
    const sched_param parameter{.sched_priority = priority};
    return negative_errno(::sched_setscheduler(0, policy, &parameter));
  }

  unsigned current_cpu() override { return static_cast<unsigned>(::sched_getcpu()); }

  int get_affinity(cpu_set_t& cpus) override { return negative_errno(::sched_getaffinity(0, sizeof cpus, &cpus)); }

  int set_affinity(const cpu_set_t& cpus) override {
    return negative_errno(::sched_setaffinity(0, sizeof cpus, &cpus));
  }

  uint64_t thread_cpu_ns() override {
    timespec used{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return static_cast<uint64_t>(used.tv_sec) * kSecond + static_cast<uint64_t>(used.tv_nsec);
  }
};

}  // namespace

Kernel& host_kernel() {
  static HostKernel kernel;
  return kernel;
}

}  // namespace tsflannel
