// One thread between some queues of the TUN and one socket.
#pragma once

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../base/kernel.h"
#include "../base/packet_cpus.h"
#include "../base/result.h"
#include "../base/unique_fd.h"
#include "../tun/flow_steering.h"
#include "../udp/udp_socket.h"
#include "cpu_follower.h"
#include "icmp_sender.h"
#include "realtime_budget.h"
#include "receive_path.h"
#include "sender.h"
#include "transmit_path.h"
#include "tun_writer.h"
#include "wake_pacer.h"
#include "worker_context.h"

namespace tsflannel {

/// A thread that forwards in both directions.
///
/// API: create(), start(), wake() after the published state changed, stop().
/// Threads: everything in here belongs to the worker's thread, except what says otherwise.
/// Limits: a turn of one direction is bounded, so neither can hold off the other; it sleeps only when both are dry.
/// Errors: none after start(); trouble is counted or told to TunnelHealth.
/// Counters: WorkerCounters and PeerCounterTable, written here only.
class Worker {
 public:
  struct Options {
    unsigned index = 0;      ///< for the name of the thread
    std::vector<int> lanes;  ///< queues of the TUN, 1…kLanesPerWorker; they and the socket are owned by the tunnel,
                             ///< which closes them after stop()
    int socket = -1;
    int icmp_socket = -1;  ///< shared by all workers, owned by the tunnel
    bool has_vnet_header = true;
    double realtime_share = 0;         ///< of a CPU, for real-time threads; 0: there are not more CPUs than workers
    Endpoint bind = {};                ///< own address, and the port of every peer
    const PacketCpus* cpus = nullptr;  ///< where the packets are, if that is known; outlives the worker
  };

  /// @param published the state to forward by; never null, changes at any time, stays alive until adopted_generation()
  /// has moved on
  [[nodiscard]] static Result<std::unique_ptr<Worker>> create(Kernel& kernel, TunnelHealth& health,
                                                              const std::atomic<const ForwardingState*>& published,
                                                              const Options& options);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker() { stop(); }

  // Control thread.
  [[nodiscard]] Result<void> start();
  /// Makes a sleeping worker look at the published state. Any thread.
  void wake();
  /// Ends the thread and waits for it; a few ms at most. Idempotent.
  void stop();

  // Any thread.
  [[nodiscard]] uint64_t adopted_generation() const { return adopted_.load(std::memory_order_acquire); }
  [[nodiscard]] const WorkerCounters& counters() const { return counters_; }
  /// See PeerCounterTable for who may do what.
  [[nodiscard]] PeerCounterTable& peer_counters() { return peer_counters_; }
  /// CPU time of the thread in seconds. Control thread.
  [[nodiscard]] double cpu_seconds() const;

 private:
  Worker(Kernel& kernel, TunnelHealth& health, const std::atomic<const ForwardingState*>& published,
         const Options& options, UniqueFd wake_fd, PathMtuProbe path_mtu);

  /// Where there may be something to read.
  struct Ready {
    bool socket = true;
    LaneSet lanes = kAllLanes;
    bool is_wake = false;  ///< the thread slept before
  };

  static void* thread_main(void* self);
  void run();
  void rise_above_processes();
  void mind_budget();
  void adopt_state();
  void follow_packets();
  void pause();
  [[nodiscard]] Ready wait();
  void check_descriptors(int socket_events, int tun_events);

  const std::atomic<const ForwardingState*>& published_;  // written by the control thread
  const unsigned index_;                                  // immutable
  const std::vector<int> lanes_;                          // immutable
  UniqueFd wake_fd_;                      // written by any thread, read by the worker; gone after stop()
  PathMtuProbe path_mtu_;                 // worker; gone after stop()
  WakePacer pacer_;                       // worker
  const PacketCpus* const cpus_;          // immutable; written by the kernel
  CpuFollower follower_;                  // worker
  cpu_set_t allowed_cpus_{};              // worker
  bool may_follow_ = false;               // worker
  const double realtime_share_;           // immutable
  RealtimeBudget budget_;                 // worker
  bool has_budget_ = false;               // worker; whether the kernel would stop it
  bool is_realtime_ = false;              // worker
  unsigned turns_ = 0;                    // worker; since the budget was looked at
  unsigned barren_wakes_ = 0;             // worker
  std::atomic<bool> is_stopping_{false};  // written by the control thread
  std::atomic<uint64_t> adopted_{0};      // written by the worker
  pthread_t thread_{};                    // control thread
  bool is_running_ = false;               // control thread
  double final_cpu_seconds_ = 0;          // control thread

  WorkerCounters counters_;         // written by the worker, read by any thread
  PeerCounterTable peer_counters_;  // see there
  WorkerContext context_;           // worker from here on
  TunWriter tun_writer_;
  IcmpSender icmp_;
  Sender sender_;
  ReceivePath receive_path_;
  TransmitPath transmit_path_;
};

}  // namespace tsflannel
