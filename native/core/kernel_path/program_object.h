// Reading compiled BPF programs.
#pragma once

#include <linux/bpf.h>

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "../base/result.h"

namespace tsflannel {

/// What a symbol that the programs leave undefined stands for.
struct ProgramSymbol {
  enum class Kind : uint8_t { kMap, kNumber };

  std::string_view name;
  Kind kind = Kind::kNumber;
  uint32_t value = 0;  ///< a map's descriptor, or the number
};

/// An object file as clang writes it for BPF: one program in each section, undefined symbols for what is known only
/// when they are loaded. No calls between sections, no data, no BTF: that is all that the kernel path needs, and keeps
/// what reads it to a page where libbpf has a library.
class ProgramObject {
 public:
  /// Takes a file over. EINVAL if it is not a relocatable ELF file of 64 bits in this machine's byte order for BPF.
  [[nodiscard]] static Result<ProgramObject> parse(std::vector<uint8_t> file);

  /// The program of a section, with the symbols put in. ENOENT if there is no such section, EINVAL if it refers to a
  /// symbol that is not given, or in another way than by loading its address, or if the file contradicts itself.
  [[nodiscard]] Result<std::vector<bpf_insn>> link(std::string_view section,
                                                   std::span<const ProgramSymbol> symbols) const;

 private:
  explicit ProgramObject(std::vector<uint8_t> file) : file_(std::move(file)) {}

  const std::vector<uint8_t> file_;
};

}  // namespace tsflannel
