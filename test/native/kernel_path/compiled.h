// The compiled programs of the kernel path.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

namespace tsflannel::testing {

/// The file that TSFLANNEL_KERNEL_PATH names; empty, which is no object file, if there is none.
inline std::vector<uint8_t> kernel_path_file() {
  const char* name = std::getenv("TSFLANNEL_KERNEL_PATH");
  std::ifstream file(name == nullptr ? "" : name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace tsflannel::testing
