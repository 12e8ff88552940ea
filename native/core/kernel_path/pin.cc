#include "pin.h"

#include <linux/bpf.h>

#include <cerrno>
#include <cstdio>

namespace tsflannel {
namespace {

bpf_attr about(const std::string& path) {
  bpf_attr attributes{};
  attributes.pathname = reinterpret_cast<uint64_t>(path.c_str());
  return attributes;
}

}  // namespace

Result<void> pin(Kernel& kernel, const UniqueFd& object, const std::string& path) {
  // A pin cannot be renamed over another one.
  const Result<void> removed = unpin(path);
  if (!removed) return removed.error();
  bpf_attr attributes = about(path);
  attributes.bpf_fd = static_cast<uint32_t>(object.get());
  const int failed = kernel.bpf(BPF_OBJ_PIN, &attributes, sizeof attributes);
  if (failed < 0) return Error{"BPF_OBJ_PIN", -failed, path};
  return {};
}

Result<UniqueFd> open_pinned(Kernel& kernel, const std::string& path) {
  bpf_attr attributes = about(path);
  const int object = kernel.bpf(BPF_OBJ_GET, &attributes, sizeof attributes);
  if (object < 0) return Error{"BPF_OBJ_GET", -object, path};
  return UniqueFd(object);
}

Result<void> unpin(const std::string& path) {
  if (std::remove(path.c_str()) != 0 && errno != ENOENT) return Error{"remove", errno, path};
  return {};
}

}  // namespace tsflannel
