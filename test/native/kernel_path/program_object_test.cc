#include "../../../native/core/kernel_path/program_object.h"

#include <elf.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "../support/packets.h"

namespace tsflannel::testing {
namespace {

constexpr uint32_t kBpf64Relocation = 1;
constexpr bpf_insn kExit = {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0};
constexpr bpf_insn kLoad = {.code = BPF_LD | BPF_IMM | BPF_DW, .dst_reg = 1, .src_reg = 0, .off = 0, .imm = 0};
constexpr bpf_insn kUpperHalf = {};

/// An object file with one program, `main`, that loads the address of `symbol`.
struct TinyObject {
  std::vector<bpf_insn> program = {kLoad, kUpperHalf, kExit};
  uint64_t relocated_at = 0;
  uint32_t relocation_type = kBpf64Relocation;

  Bytes build() const {
    // The names double as those of sections and of symbols.
    const std::string names("\0main\0rel\0names\0symbols\0symbol\0", 31);
    const Elf64_Rel relocation{.r_offset = relocated_at, .r_info = ELF64_R_INFO(uint64_t{1}, relocation_type)};
    std::array<Elf64_Sym, 2> symbols{};
    symbols[1].st_name = 24;
    Bytes file(sizeof(Elf64_Ehdr));
    std::array<Elf64_Shdr, 5> sections{};
    const auto add = [&](size_t index, uint32_t name, uint32_t type, const void* data, size_t size) {
      sections.at(index).sh_name = name;
      sections.at(index).sh_type = type;
      sections.at(index).sh_offset = file.size();
      sections.at(index).sh_size = size;
      file.resize(file.size() + size);
      std::memcpy(file.data() + file.size() - size, data, size);
    };
    add(1, 1, SHT_PROGBITS, program.data(), program.size() * sizeof(bpf_insn));
    add(2, 6, SHT_REL, &relocation, sizeof relocation);
    sections[2].sh_link = 4;
    sections[2].sh_info = 1;
    add(3, 10, SHT_STRTAB, names.data(), names.size());
    add(4, 16, SHT_SYMTAB, symbols.data(), sizeof symbols);
    sections[4].sh_link = 3;
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_REL;
    header.e_machine = EM_BPF;
    header.e_shoff = file.size();
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shnum = sections.size();
    header.e_shstrndx = 3;
    std::memcpy(file.data(), &header, sizeof header);
    const auto* bytes = reinterpret_cast<const uint8_t*>(sections.data());
    file.insert(file.end(), bytes, bytes + sizeof sections);
    return file;
  }
};

Result<std::vector<bpf_insn>> link(const Bytes& file, const ProgramSymbol& symbol, std::string_view section = "main") {
  const Result<ProgramObject> object = ProgramObject::parse(file);
  if (!object) return object.error();
  return object.value().link(section, std::span(&symbol, 1));
}

TEST("a map's descriptor takes the place of its symbol") {
  const auto program = link(TinyObject{}.build(), {"symbol", ProgramSymbol::Kind::kMap, 7});
  CHECK(program.ok());
  CHECK_EQ(program.value().size(), 3);
  CHECK_EQ(uint8_t{program.value()[0].src_reg}, BPF_PSEUDO_MAP_FD);
  CHECK_EQ(program.value()[0].imm, 7);
  CHECK_EQ(program.value()[2].code, kExit.code);
}

TEST("a number of 32 bits takes the place of its symbol, without a sign") {
  const auto program = link(TinyObject{}.build(), {"symbol", ProgramSymbol::Kind::kNumber, 0xc0000201});
  CHECK(program.ok());
  CHECK_EQ(uint8_t{program.value()[0].src_reg}, 0);
  CHECK_EQ(program.value()[0].imm, static_cast<int32_t>(0xc0000201));
  CHECK_EQ(program.value()[1].imm, 0);
}

TEST("a program that is not there or refers to what nobody knows is told by name") {
  const Bytes file = TinyObject{}.build();
  const auto missing = link(file, {"symbol"}, "other");
  CHECK(!missing.ok());
  CHECK_EQ(missing.error().code, ENOENT);
  CHECK_EQ(missing.error().detail, "no program other");
  const auto unknown = link(file, {"another"});
  CHECK(!unknown.ok());
  CHECK_EQ(unknown.error().code, EINVAL);
  CHECK_EQ(unknown.error().detail, "nothing is known of the symbol symbol");
}

TEST("a symbol can only be where 64 bits are loaded") {
  for (const uint64_t at : {uint64_t{4}, uint64_t{8}, uint64_t{16}, uint64_t{24}, ~uint64_t{7}}) {
    CHECK_NOTE(!link(TinyObject{.relocated_at = at}.build(), {"symbol"}).ok(), show(at));
  }
  CHECK(!link(TinyObject{.relocation_type = 10}.build(), {"symbol"}).ok());  // R_BPF_64_32: a call
}

TEST("a file that is cut short or changed anywhere is read without harm") {
  const Bytes file = TinyObject{}.build();
  for (size_t length = 0; length < file.size(); length++) {
    CHECK_NOTE(!link({file.begin(), file.begin() + static_cast<std::ptrdiff_t>(length)}, {"symbol"}).ok(),
               show(length));
  }
  Random random;
  for (int i = 0; i < 20'000; i++) {
    Bytes changed = file;
    for (size_t n = 1 + random.below(3); n > 0; n--) changed[random.below(changed.size())] = random.byte();
    (void)link(changed, {"symbol"});
  }
}

TEST("what is not for BPF is refused") {
  for (const size_t at : {size_t{0}, size_t{EI_CLASS}, size_t{EI_DATA}, offsetof(Elf64_Ehdr, e_type),
                          offsetof(Elf64_Ehdr, e_machine), offsetof(Elf64_Ehdr, e_shentsize)}) {
    Bytes file = TinyObject{}.build();
    file[at] ^= 3;
    const Result<ProgramObject> object = ProgramObject::parse(file);
    CHECK_NOTE(!object.ok() && object.error().code == EINVAL, show(at));
  }
}

}  // namespace
}  // namespace tsflannel::testing
