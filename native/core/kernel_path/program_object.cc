#include "program_object.h"

#include <elf.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace tsflannel {
namespace {

constexpr uint32_t kBpf64Relocation = 1;  // R_BPF_64_64: the immediate of an instruction that loads 64 bits
constexpr uint8_t kByteOrder = std::endian::native == std::endian::little ? ELFDATA2LSB : ELFDATA2MSB;

using Bytes = std::span<const uint8_t>;

Error bad_object(std::string detail, int code = EINVAL) {
  return {"read BPF object", code, std::move(detail)};
}

/// Copy of a structure in the file, if it lies inside.
template <typename T>
std::optional<T> read(Bytes file, uint64_t offset) {
  static_assert(std::is_trivially_copyable_v<T>);
  if (offset > file.size() || file.size() - offset < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, file.data() + offset, sizeof value);
  return value;
}

std::optional<Bytes> contents(Bytes file, const Elf64_Shdr& section) {
  if (section.sh_offset > file.size() || section.sh_size > file.size() - section.sh_offset) return std::nullopt;
  return file.subspan(section.sh_offset, section.sh_size);
}

/// The string at `offset` of a string table; empty if there is none.
std::string_view string_at(Bytes table, uint64_t offset) {
  if (offset >= table.size()) return {};
  const auto rest = table.subspan(offset);
  const auto end = std::find(rest.begin(), rest.end(), 0);
  if (end == rest.end()) return {};
  return {reinterpret_cast<const char*>(rest.data()), static_cast<size_t>(end - rest.begin())};
}

/// The sections of a file with their names.
class Sections {
 public:
  static std::optional<Sections> read_from(Bytes file) {
    const auto header = read<Elf64_Ehdr>(file, 0);
    if (!header) return std::nullopt;
    Sections sections(file);
    for (uint64_t i = 0; i < header->e_shnum; i++) {
      const auto each = read<Elf64_Shdr>(file, header->e_shoff + i * sizeof(Elf64_Shdr));
      if (!each) return std::nullopt;
      sections.all_.push_back(*each);
    }
    if (!sections.at(header->e_shstrndx)) return std::nullopt;
    sections.names_ = *sections.at(header->e_shstrndx);
    return sections;
  }

  [[nodiscard]] const std::vector<Elf64_Shdr>& all() const { return all_; }

  [[nodiscard]] std::optional<Bytes> at(size_t index) const {
    return index < all_.size() ? contents(file_, all_[index]) : std::nullopt;
  }

  [[nodiscard]] std::optional<size_t> find(std::string_view name) const {
    for (size_t i = 0; i < all_.size(); i++) {
      if (string_at(names_, all_[i].sh_name) == name) return i;
    }
    return std::nullopt;
  }

 private:
  explicit Sections(Bytes file) : file_(file) {}

  Bytes file_;
  Bytes names_;
  std::vector<Elf64_Shdr> all_;
};

/// Puts a symbol into the instruction at `offset`; false if that is none that loads 64 bits.
bool put(std::vector<bpf_insn>& program, uint64_t offset, const ProgramSymbol& symbol) {
  const size_t index = offset / sizeof(bpf_insn);
  if (offset % sizeof(bpf_insn) != 0 || index + 1 >= program.size()) return false;
  bpf_insn& load = program[index];
  if (load.code != (BPF_LD | BPF_IMM | BPF_DW)) return false;
  load.src_reg = symbol.kind == ProgramSymbol::Kind::kMap ? BPF_PSEUDO_MAP_FD : 0;
  load.imm = std::bit_cast<int32_t>(symbol.value);
  program[index + 1].imm = 0;
  return true;
}

Result<void> relocate(std::vector<bpf_insn>& program, const Elf64_Rel& relocation, std::string_view wanted,
                      std::span<const ProgramSymbol> symbols) {
  const auto found = std::find_if(symbols.begin(), symbols.end(),
                                  [wanted](const ProgramSymbol& symbol) { return symbol.name == wanted; });
  if (found == symbols.end()) return bad_object("nothing is known of the symbol " + std::string(wanted));
  if (ELF64_R_TYPE(relocation.r_info) != kBpf64Relocation || !put(program, relocation.r_offset, *found)) {
    return bad_object("something else than the address is wanted of " + std::string(wanted));
  }
  return {};
}

}  // namespace

Result<ProgramObject> ProgramObject::parse(std::vector<uint8_t> file) {
  const auto header = read<Elf64_Ehdr>(file, 0);
  if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return bad_object("not an ELF file");
  if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != kByteOrder || header->e_type != ET_REL ||
      header->e_machine != EM_BPF || header->e_shentsize != sizeof(Elf64_Shdr)) {
    return bad_object("not a relocatable file for BPF");
  }
  if (!Sections::read_from(file)) return bad_object("a section lies outside of the file");
  return ProgramObject(std::move(file));
}

Result<std::vector<bpf_insn>> ProgramObject::link(std::string_view section,
                                                  std::span<const ProgramSymbol> symbols) const {
  const std::string name(section);
  const auto sections = Sections::read_from(file_);
  if (!sections) return bad_object("a section lies outside of the file");
  const auto index = sections->find(section);
  if (!index) return bad_object("no program " + name, ENOENT);
  const auto code = sections->at(*index);
  if (!code || code->empty() || code->size() % sizeof(bpf_insn) != 0) return bad_object(name + " is not a program");
  std::vector<bpf_insn> program(code->size() / sizeof(bpf_insn));
  std::memcpy(program.data(), code->data(), code->size());

  for (const Elf64_Shdr& each : sections->all()) {
    if (each.sh_type != SHT_REL || each.sh_info != *index) continue;
    const auto relocations = contents(file_, each);
    const auto symbol_table = sections->at(each.sh_link);
    const auto names = symbol_table ? sections->at(sections->all()[each.sh_link].sh_link) : std::nullopt;
    if (!relocations || !names) return bad_object(name + " has no symbols where they should be");
    for (uint64_t at = 0; at < relocations->size(); at += sizeof(Elf64_Rel)) {
      const auto relocation = read<Elf64_Rel>(*relocations, at);
      if (!relocation) return bad_object(name + " ends with half a relocation");
      const auto symbol = read<Elf64_Sym>(*symbol_table, ELF64_R_SYM(relocation->r_info) * sizeof(Elf64_Sym));
      const auto put_in = relocate(program, *relocation, symbol ? string_at(*names, symbol->st_name) : "", symbols);
      if (!put_in) return put_in.error();
    }
  }
  return program;
}

}  // namespace tsflannel
