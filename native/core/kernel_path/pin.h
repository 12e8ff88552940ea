// Objects of BPF that outlive the process, as files below a mounted bpffs.
#pragma once

#include <string>

#include "../base/kernel.h"
#include "../base/result.h"
#include "../base/unique_fd.h"

namespace tsflannel {

/// Gives a map, program or link a name, in the place of whatever had it.
[[nodiscard]] Result<void> pin(Kernel& kernel, const UniqueFd& object, const std::string& path);

/// The object of that name. ENOENT if there is none.
[[nodiscard]] Result<UniqueFd> open_pinned(Kernel& kernel, const std::string& path);

/// Takes a name away; nothing happens if there is none.
[[nodiscard]] Result<void> unpin(const std::string& path);

}  // namespace tsflannel
