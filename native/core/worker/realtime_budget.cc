#include "realtime_budget.h"

#include <sys/utsname.h>

#include <charconv>
#include <cstdio>
#include <memory>

namespace tsflannel {
namespace {

constexpr unsigned kFairServerMajor = 6;
constexpr unsigned kFairServerMinor = 12;

bool has_fair_server(std::string_view release) {
  unsigned major = 0;
  unsigned minor = 0;
  const char* end = release.data() + release.size();
  const auto first = std::from_chars(release.data(), end, major);
  if (first.ptr == end || *first.ptr != '.') return false;
  (void)std::from_chars(first.ptr + 1, end, minor);
  return major > kFairServerMajor || (major == kFairServerMajor && minor >= kFairServerMinor);
}

/// The number in a file; negative if there is none.
int64_t number_in(const char* path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path, "re"), std::fclose);
  long long number = -1;
  return file != nullptr && std::fscanf(file.get(), "%lld", &number) == 1 ? number : -1;
}

}  // namespace

double realtime_share(std::string_view release, int64_t runtime_us, int64_t period_us) {
  if (runtime_us < 0 || period_us <= 0 || runtime_us >= period_us || has_fair_server(release)) return kUnlimitedShare;
  return static_cast<double>(runtime_us) / static_cast<double>(period_us);
}

double host_realtime_share() {
  utsname host{};
  if (::uname(&host) != 0) return kUnlimitedShare;
  return realtime_share(host.release, number_in("/proc/sys/kernel/sched_rt_runtime_us"),
                        number_in("/proc/sys/kernel/sched_rt_period_us"));
}

}  // namespace tsflannel
