#include "worker.h"

#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <ctime>
#include <utility>

namespace tsflannel {
namespace {

// That of the kernel's own high-priority workers (HIGHPRI_NICE_LEVEL in kernel/workqueue.c).
constexpr int kWorkerNice = -20;
// The lowest real-time priority: below interrupt threads (50) and everything else that is real-time on purpose.
constexpr int kWorkerPriority = 1;
// Turns between two looks at the CPU time: some 5 ms under load, a small part of the budget's window, and a system
// call.
constexpr unsigned kTurnsPerLook = 64;
// So many wake-ups in a row without anything to do mean that a descriptor is ready for ever in a way this code does not
// know. The thread then sleeps between them instead of taking the CPU.
constexpr unsigned kMaxBarrenWakes = 1000;
constexpr int64_t kBarrenWakeNs = 10'000'000;
// How often the time limit of packets that wait for the socket is looked at.
constexpr int64_t kBlockedWaitNs = 1'000'000;

}  // namespace

Result<std::unique_ptr<Worker>> Worker::create(Kernel& kernel, TunnelHealth& health,
                                               const std::atomic<const ForwardingState*>& published,
                                               const Options& options) {
  UniqueFd wake_fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!wake_fd) return Error{"eventfd", errno, ""};
  Result<PathMtuProbe> path_mtu = PathMtuProbe::open(kernel, options.bind.address);
  if (!path_mtu) return path_mtu.error();
  return std::unique_ptr<Worker>(
      new Worker(kernel, health, published, options, std::move(wake_fd), std::move(path_mtu).value()));
}

Worker::Worker(Kernel& kernel, TunnelHealth& health, const std::atomic<const ForwardingState*>& published,
               const Options& options, UniqueFd wake_fd, PathMtuProbe path_mtu)
    : published_(published),
      index_(options.index),
      lanes_(options.lanes),
      wake_fd_(std::move(wake_fd)),
      path_mtu_(std::move(path_mtu)),
      cpus_(options.cpus),
      realtime_share_(options.realtime_share),
      budget_(options.realtime_share),
      context_{kernel, health,         counters_,           peer_counters_,
               lanes_, options.socket, options.icmp_socket, options.has_vnet_header},
      tun_writer_(context_),
      icmp_(context_),
      sender_(context_, icmp_, path_mtu_, options.bind.port),
      receive_path_(context_, tun_writer_),
      transmit_path_(context_, icmp_, sender_) {}

Result<void> Worker::start() {
  // Signals belong to the main thread: the new one inherits a full mask.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int failed = pthread_create(&thread_, nullptr, thread_main, this);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (failed != 0) return Error{"pthread_create", failed, ""};
  is_running_ = true;
  return {};
}

void Worker::wake() {
  // Fails only if the counter is full, and then the worker is awake already, or after stop().
  (void)::eventfd_write(wake_fd_.get(), 1);
}

void Worker::stop() {
  if (!is_running_) return;
  is_stopping_.store(true, std::memory_order_relaxed);
  wake();
  final_cpu_seconds_ = cpu_seconds();
  pthread_join(thread_, nullptr);
  is_running_ = false;
  wake_fd_.reset();
  path_mtu_.close();
}

double Worker::cpu_seconds() const {
  if (!is_running_) return final_cpu_seconds_;
  clockid_t clock{};
  timespec used{};
  if (pthread_getcpuclockid(thread_, &clock) != 0 || ::clock_gettime(clock, &used) != 0) return final_cpu_seconds_;
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
}

void* Worker::thread_main(void* self) {
  static_cast<Worker*>(self)->run();
  return nullptr;
}

/// Lets the thread run when there are packets, whatever else the host is busy with, as a kernel backend does in
/// softirqs. On two cores with a load of 8 the round trip stays below 1 ms (with nice -20, tens of ms: the scheduler
/// lets an ordinary thread wait for the next tick), and TCP runs 2 to 3 times as fast. A CPU is left to ordinary
/// threads. Without CAP_SYS_NICE all of this is refused, and the thread is one of many.
void Worker::rise_above_processes() {
  is_realtime_ = realtime_share_ > 0 && context_.kernel.set_scheduler(SCHED_RR, kWorkerPriority) == 0;
  has_budget_ = is_realtime_ && budget_.is_limited();
  (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kWorkerNice);  // for whenever it is not real-time
}

/// Gives up real-time scheduling before the kernel stops the thread for having used too much of it.
void Worker::mind_budget() {
  if (++turns_ < kTurnsPerLook) return;
  turns_ = 0;
  Kernel& kernel = context_.kernel;
  const bool may_be_realtime = budget_.may_be_realtime(monotonic_ns(), kernel.thread_cpu_ns());
  if (may_be_realtime == is_realtime_) return;
  const int changed =
      kernel.set_scheduler(may_be_realtime ? SCHED_RR : SCHED_OTHER, may_be_realtime ? kWorkerPriority : 0);
  if (changed == 0) is_realtime_ = may_be_realtime;
}

void Worker::run() {
  const std::string name = "tunnel/" + std::to_string(index_);
  pthread_setname_np(pthread_self(), name.c_str());
  rise_above_processes();
  may_follow_ = cpus_ != nullptr && context_.kernel.get_affinity(allowed_cpus_) >= 0;

  // After a wait only what the kernel named is worth a system call. As long as there is work nobody asks it, so then
  // everything is looked at.
  Ready ready;
  while (!is_stopping_.load(std::memory_order_relaxed)) {
    adopt_state();
    if (context_.health.is_resting()) context_.health.try_again(monotonic_ns());
    if (has_budget_) mind_budget();
    if (ready.is_wake && ready.socket) follow_packets();
    const uint64_t packets_before = counters_.tx_packets.get() + counters_.rx_packets.get();
    bool has_progress = false;
    if (ready.socket && !context_.has_failed) has_progress |= receive_path_.run();
    // Also when the other direction has just failed: what waits for the socket is dropped then, and counted.
    has_progress |= transmit_path_.run(ready.lanes);
    const uint64_t packets = counters_.tx_packets.get() + counters_.rx_packets.get() - packets_before;
    if (ready.is_wake && follower_.brought(packets)) (void)context_.kernel.set_affinity(allowed_cpus_);
    if (has_progress) {
      barren_wakes_ = 0;
      ready = {};
    } else {
      ready = wait();
    }
  }
}

/// Between two batches nothing refers to the old state any more, so the control thread may free it.
void Worker::adopt_state() {
  const ForwardingState* state = published_.load(std::memory_order_acquire);
  if (state == context_.state) return;
  context_.state = state;
  adopted_.store(state->generation, std::memory_order_release);
}

/// Goes where the packets come from, see CpuFollower; the scheduler does that by itself with an ordinary thread.
void Worker::follow_packets() {
  if (!may_follow_ || !is_realtime_) return;
  const std::optional<unsigned> wanted = follower_.woke(cpus_->latest(index_), context_.kernel.current_cpu());
  if (!wanted || *wanted >= CPU_SETSIZE) return;
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(*wanted, &only);
  (void)context_.kernel.set_affinity(only);  // refused where the thread may not be: it stays then
}

/// Lets packets gather. With a lane of their own, those that are not TCP are not held back for its bulk.
void Worker::pause() {
  const WakePacer::Pause wanted = pacer_.pause(counters_.tx_bytes.get() + counters_.rx_bytes.get());
  if (wanted == WakePacer::Pause::kNone) return;
  const bool may_be_cut_short = wanted == WakePacer::Pause::kUnlessUrgent && lanes_.size() > 1;
  pollfd urgent{lanes_.front(), POLLIN, 0};
  pacer_.paused(context_.kernel.poll(&urgent, may_be_cut_short ? 1 : 0, WakePacer::kPauseNs) > 0);
}

Worker::Ready Worker::wait() {
  const bool is_blocked = transmit_path_.is_blocked();
  std::array<pollfd, 2 + kLanesPerWorker> fds = {
      pollfd{wake_fd_.get(), POLLIN, 0},
      pollfd{context_.socket, static_cast<short>(is_blocked ? POLLIN | POLLOUT : POLLIN), 0},
  };
  unsigned count = 1;
  // A failed descriptor would be reported again and again: from then on only stop() matters.
  if (!context_.has_failed) {
    count = 2;
    for (const int lane : lanes_) fds[count++] = {lane, static_cast<short>(is_blocked ? 0 : POLLIN), 0};
  }
  // While packets wait for the socket their time limit has to be looked at, too.
  const int64_t timeout_ns = is_blocked && !context_.has_failed ? kBlockedWaitNs : kForever;
  pause();
  const uint64_t before_ns = monotonic_ns();
  const int ready = context_.kernel.poll(fds.data(), count, timeout_ns);
  pacer_.waited(monotonic_ns() - before_ns);
  barren_wakes_ = ready > 0 ? barren_wakes_ + 1 : 0;
  if (barren_wakes_ > kMaxBarrenWakes) (void)context_.kernel.poll(nullptr, 0, kBarrenWakeNs);
  if (ready < 0 && ready != -EINTR) context_.fail("poll", -ready);
  if (ready < 0) return {};
  if ((fds[0].revents & POLLIN) != 0) {
    eventfd_t ignored = 0;
    (void)::eventfd_read(wake_fd_.get(), &ignored);
  }
  check_descriptors(fds[1].revents, fds[2].revents);
  Ready found{.socket = fds[1].revents != 0, .lanes = 0, .is_wake = true};
  for (unsigned lane = 0; lane < lanes_.size(); lane++) found.lanes |= (fds[2 + lane].revents != 0 ? 1U : 0U) << lane;
  return found;
}

/// A TUN whose device was deleted only signals here. Reading tells more than poll(): it gives the errno.
void Worker::check_descriptors(int socket_events, int tun_events) {
  if ((socket_events & POLLNVAL) != 0) context_.fail("poll the socket", EBADF);
  if ((tun_events & (POLLERR | POLLHUP | POLLNVAL)) == 0) return;
  uint8_t nothing = 0;
  const ssize_t size = context_.kernel.read(context_.tun(), &nothing, 0);
  context_.fail("read from the TUN", size < 0 && size != -EAGAIN ? static_cast<int>(-size) : EBADFD);
}

}  // namespace tsflannel
