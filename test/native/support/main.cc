// Runs the registered tests, or those whose name contains what is given:
//
//   PROGRAM [--bail] [PART]      --bail: ends with the first test that fails
#include <cstring>
#include <iostream>
#include <vector>

#include "harness.h"

namespace tsflannel::testing {
namespace {

struct Test {
  const char* file;
  const char* name;
  TestBody body;
};

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

int failures = 0;

}  // namespace

bool register_test(const char* file, const char* name, TestBody body) {
  tests().push_back({file, name, body});
  return true;
}

void report_failure(const char* file, int line, const std::string& what) {
  constexpr int kShown = 10;
  failures++;
  if (failures <= kShown) std::cout << "    " << file << ":" << line << ": " << what << "\n";
}

bool passing() {
  return failures == 0;
}

}  // namespace tsflannel::testing

// Where the core tells which code was reached (Makefile), for the fuzzers; no test asks.
extern "C" void __sanitizer_cov_trace_pc();
extern "C" void __sanitizer_cov_trace_pc() {}

int main(int argc, char** argv) {
  using namespace tsflannel::testing;
  const bool bails = argc > 1 && std::strcmp(argv[1], "--bail") == 0;
  const char* part = argc > (bails ? 2 : 1) ? argv[argc - 1] : "";
  int passed = 0;
  int failed = 0;
  for (const Test& test : tests()) {
    if (std::strstr(test.name, part) == nullptr) continue;
    if (bails && failed > 0) break;
    failures = 0;
    test.body();
    if (failures == 0) {
      passed++;
      continue;
    }
    failed++;
    std::cout << "not ok: " << test.name << " (" << test.file << ", " << failures << " failures, seed " << seed()
              << ")\n";
  }
  std::cout << passed << " passed, " << failed << " failed" << std::endl;
  return failed == 0 && passed > 0 ? 0 : 1;
}
