// A small fuzzing engine for where there is no libFuzzer: any g++ can build it. The targets are the same, and so are
// the options that it knows:
//
//   PROGRAM [-runs=N] [-max_total_time=SECONDS] [-max_len=BYTES] [-artifact_prefix=PATH] [CORPUS]
//   PROGRAM INPUT                        runs that one input again
//
// Inputs are random at first; one that reaches new code (-fsanitize-coverage=trace-pc) is kept and mutated. With the
// same TSFLANNEL_SEED and number of runs the same inputs are made. An input that ends the program is written to
// PATH followed by its hash.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "../support/harness.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" void __sanitizer_set_death_callback(void (*callback)());

namespace {

using Input = std::vector<uint8_t>;
using Clock = std::chrono::system_clock;  // the monotonic clock belongs to the targets

// Which places of the program an input reached; a place is the hash of an address.
constexpr size_t kPlaces = 1U << 16;
std::array<uint8_t, kPlaces> reached;
std::array<bool, kPlaces> known;
constexpr uint8_t* kReached = reached.data();

// For the handlers that run when the program ends early.
const Input* running = nullptr;
std::string artifact_prefix = "./";

uint64_t hash_of(const Input& input) {
  uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a
  for (const uint8_t byte : input) hash = (hash ^ byte) * 0x100000001b3U;
  return hash;
}

void keep(const Input& input, const std::string& path) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(input.data()), static_cast<std::streamsize>(input.size()));
}

void keep_finding() {
  if (running == nullptr) return;
  char name[17];
  std::snprintf(name, sizeof name, "%016lx", static_cast<unsigned long>(hash_of(*running)));
  const std::string path = artifact_prefix + "crash-" + name;
  keep(*running, path);
  running = nullptr;
  std::fprintf(stderr, "the input is in %s; give that to this program to run it again\n", path.c_str());
}

void on_abort(int) {
  keep_finding();
  std::signal(SIGABRT, SIG_DFL);
  std::raise(SIGABRT);
}

struct Options {
  uint64_t runs = UINT64_MAX;
  uint64_t seconds = UINT64_MAX;
  size_t max_length = 4096;
  std::string path;
};

bool take(std::string_view argument, std::string_view name, uint64_t& value) {
  if (!argument.starts_with(name)) return false;
  value = std::strtoull(std::string(argument.substr(name.size())).c_str(), nullptr, 10);
  return true;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i++) {
    const std::string_view argument = argv[i];
    uint64_t value = 0;
    if (take(argument, "-runs=", options.runs) || take(argument, "-max_total_time=", options.seconds)) {
      continue;
    }
    if (take(argument, "-max_len=", value)) {
      options.max_length = value;
    } else if (argument.starts_with("-artifact_prefix=")) {
      artifact_prefix = argument.substr(argument.find('=') + 1);
    } else if (!argument.starts_with("-")) {
      options.path = argument;
    }
  }
  return options;
}

class Fuzzer {
 public:
  explicit Fuzzer(const Options& options) : options_(options) {}

  int run() {
    read_corpus();
    const auto start = Clock::now();
    uint64_t runs = 0;
    for (; runs < options_.runs; runs++) {
      if ((runs & 63) == 0 && seconds_since(start) >= options_.seconds) break;
      Input input = make();
      if (execute(input)) add(std::move(input));
    }
    std::printf("stat::number_of_executed_units: %lu\n", static_cast<unsigned long>(runs));
    std::printf("stat::new_units_added: %zu\n", added_);
    std::printf("stat::places_reached: %zu\n", places_);
    std::printf("stat::seed: %lu\n", static_cast<unsigned long>(tsflannel::testing::seed()));
    return 0;
  }

 private:
  static uint64_t seconds_since(Clock::time_point start) {
    return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - start).count());
  }

  void read_corpus() {
    if (options_.path.empty()) return;
    std::vector<std::string> names;
    for (const auto& each : std::filesystem::directory_iterator(options_.path)) names.push_back(each.path());
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
      std::ifstream file(name, std::ios::binary);
      Input input{std::istreambuf_iterator<char>(file), {}};
      if (execute(input)) corpus_.push_back(std::move(input));
    }
  }

  void add(Input input) {
    added_++;
    if (!options_.path.empty()) keep(input, options_.path + "/" + std::to_string(hash_of(input)));
    corpus_.push_back(std::move(input));
  }

  /// Whether the input reached a place that none before it did.
  bool execute(const Input& input) {
    reached.fill(0);
    running = &input;
    // Memory of its own, so that the sanitizer sees a read past the end.
    const Input exact(input);
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
    running = nullptr;
    bool is_new = false;
    for (size_t place = 0; place < kPlaces; place++) {
      if (reached[place] == 0 || known[place]) continue;
      known[place] = true;
      places_++;
      is_new = true;
    }
    return is_new;
  }

  Input make() {
    // Every so often from nothing, so that no corpus is a dead end.
    if (corpus_.empty() || random_.one_in(4)) {
      // Short ones are the quicker and the clearer ones.
      const size_t most = std::max<size_t>(options_.max_length >> random_.below(8), 1);
      return noise(1 + random_.below(most));
    }
    Input input = corpus_[random_.below(corpus_.size())];
    for (size_t changes = 1 + random_.below(5); changes > 0; changes--) change(input);
    if (input.size() > options_.max_length) input.resize(options_.max_length);
    return input;
  }

  Input noise(size_t length) {
    Input input(length);
    for (uint8_t& each : input) each = random_.byte();
    return input;
  }

  void change(Input& input) {
    if (input.empty()) input.push_back(random_.byte());
    const size_t at = random_.below(input.size());
    const auto here = input.begin() + static_cast<std::ptrdiff_t>(at);
    const size_t length = std::min(1 + random_.below(64), input.size() - at);
    switch (random_.below(7)) {
      case 0:
        *here = random_.byte();
        break;
      case 1:
        *here = static_cast<uint8_t>(*here ^ 1U << random_.below(8));
        break;
      case 2:
        *here = static_cast<uint8_t>(*here + random_.below(9) - 4);
        break;
      case 3:
        input.erase(here, here + static_cast<std::ptrdiff_t>(length));
        break;
      case 4: {
        const Input fresh = noise(length);
        input.insert(here, fresh.begin(), fresh.end());
        break;
      }
      case 5: {  // again elsewhere
        const Input part(here, here + static_cast<std::ptrdiff_t>(length));
        const size_t to = random_.below(input.size());
        input.insert(input.begin() + static_cast<std::ptrdiff_t>(to), part.begin(), part.end());
        break;
      }
      default: {  // goes on as another one does
        const Input& other = corpus_[random_.below(corpus_.size())];
        if (at < other.size()) {
          input.resize(at);
          input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(at), other.end());
        }
      }
    }
  }

  const Options options_;
  tsflannel::testing::Random random_;
  std::vector<Input> corpus_;
  size_t places_ = 0;
  size_t added_ = 0;
};

}  // namespace

// Called by every basic block that was compiled with -fsanitize-coverage=trace-pc; this file is not. Nothing is called as
// often, so it goes without the checks of the sanitizers.
extern "C" void __sanitizer_cov_trace_pc();
extern "C" __attribute__((no_sanitize("address", "undefined"))) void __sanitizer_cov_trace_pc() {
  // Counted from a place of the program, since where that is loaded differs from run to run.
  const auto place = reinterpret_cast<uintptr_t>(__builtin_return_address(0)) - reinterpret_cast<uintptr_t>(kReached);
  kReached[(place ^ place >> 16) % kPlaces] = 1;
}

int main(int argc, char** argv) {
  __sanitizer_set_death_callback(keep_finding);
  std::signal(SIGABRT, on_abort);
  const Options options = parse(argc, argv);
  if (std::filesystem::is_regular_file(options.path)) {
    std::ifstream file(options.path, std::ios::binary);
    const Input input{std::istreambuf_iterator<char>(file), {}};
    return LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  return Fuzzer(options).run();
}
