#include "netns_socket.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "../core/base/result.h"
#include "../core/base/unique_fd.h"
#include "convert.h"

namespace tsflannel {
namespace {

/// What a socket is made from.
struct SocketKind {
  int domain;
  int type;
  int protocol;
};

/// Leaves the calling thread in that namespace.
Result<UniqueFd> enter_and_open(const std::string& path, const SocketKind& kind) {
  const UniqueFd netns(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (netns.get() < 0) return Error{"open", errno, path};
  if (::setns(netns.get(), CLONE_NEWNET) < 0) return Error{"setns", errno, path};
  UniqueFd opened(::socket(kind.domain, kind.type | SOCK_CLOEXEC | SOCK_NONBLOCK, kind.protocol));
  if (opened.get() < 0) return Error{"socket", errno, path};
  return opened;
}

}  // namespace

Napi::Value open_netns_socket(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 4 || !info[0].IsString() || !info[1].IsNumber() || !info[2].IsNumber() || !info[3].IsNumber()) {
    Napi::TypeError::New(env, "openNetnsSocket needs a path and three numbers").ThrowAsJavaScriptException();
    return env.Undefined();
  }
  const std::string path = info[0].As<Napi::String>().Utf8Value();
  const SocketKind kind{info[1].As<Napi::Number>().Int32Value(), info[2].As<Napi::Number>().Int32Value(),
                        info[3].As<Napi::Number>().Int32Value()};
  // A thread of its own: a namespace belongs to a thread, and none of those that live on must be moved.
  Result<UniqueFd> opened = Error{"thread", EAGAIN, path};
  std::thread([&opened, &path, &kind] { opened = enter_and_open(path, kind); }).join();
  if (!opened) {
    to_js(env, opened.error()).ThrowAsJavaScriptException();
    return env.Undefined();
  }
  return Napi::Number::New(env, std::move(opened).value().release());
}

}  // namespace tsflannel
