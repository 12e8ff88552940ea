// The JavaScript object that holds a tunnel.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "../core/worker/tunnel.h"
#include "event_queue.h"
#include "napi_include.h"

namespace tsflannel {

/// A tunnel with the queue its events go to, closable once from wherever it ends first: close(), the garbage collector
/// or the end of the environment.
class HeldTunnel {
 public:
  HeldTunnel(std::unique_ptr<EventQueue> events, std::unique_ptr<Tunnel> tunnel)
      : events_(std::move(events)), tunnel_(std::move(tunnel)) {}
  HeldTunnel(const HeldTunnel&) = delete;
  HeldTunnel& operator=(const HeldTunnel&) = delete;
  ~HeldTunnel() { close(); }

  /// Calls `use` with the tunnel, never while another thread is closing it.
  template <typename Use>
  auto with_tunnel(Use&& use) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return use(*tunnel_);
  }

  /// Any thread. The workers end first, so that nobody uses the queue when its end is reached.
  void close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    tunnel_->close();
    events_->close();
  }

 private:
  std::mutex mutex_;
  std::unique_ptr<EventQueue> events_;  // outlives the tunnel, which reports to it
  std::unique_ptr<Tunnel> tunnel_;
};

/// What the addon keeps per environment, so that worker threads of Node do not share it.
struct AddonData {
  std::vector<std::weak_ptr<HeldTunnel>> open;
};

/// Method table of the object; the JavaScript thread calls everything here.
class TunnelHandle : public Napi::ObjectWrap<TunnelHandle> {
 public:
  static Napi::Function define(Napi::Env env);

  /// JavaScript: new Tunnel(options, onEvent). Throws what to_js(Error) makes.
  explicit TunnelHandle(const Napi::CallbackInfo& info);

 private:
  Napi::Value update(const Napi::CallbackInfo& info);
  Napi::Value generation(const Napi::CallbackInfo& info);
  Napi::Value device(const Napi::CallbackInfo& info);
  Napi::Value offloads(const Napi::CallbackInfo& info);
  Napi::Value workers(const Napi::CallbackInfo& info);
  Napi::Value counters(const Napi::CallbackInfo& info);
  Napi::Value peer_counters(const Napi::CallbackInfo& info);
  Napi::Value tun_descriptors(const Napi::CallbackInfo& info);
  Napi::Value socket_descriptors(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  // Shared with the work that closes it on another thread; null if the constructor threw.
  std::shared_ptr<HeldTunnel> held_;
};

}  // namespace tsflannel
