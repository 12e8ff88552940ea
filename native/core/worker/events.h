// What a tunnel tells about itself.
#pragma once

#include "../base/offload.h"

namespace tsflannel {

/// TunnelEvent in src/dataplane/tunnel.ts.
struct TunnelEvent {
  enum class Type : uint8_t { kDowngrade, kTrial, kFailed };
  Type type = Type::kFailed;
  Offload offload = Offload::kVnetHdr;  ///< kDowngrade: what is no longer used; kTrial: what is used again
  const char* operation = "";           ///< the call that the kernel refused; a string literal
  int code = 0;                         ///< errno
};

/// Receiver of events. Called on worker threads, rarely (once per change), and must not block.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void on_event(const TunnelEvent& event) = 0;
};

}  // namespace tsflannel
