#include "harness.h"

namespace tsflannel::testing {

std::string show(long long value) {
  return std::to_string(value);
}

std::string show(unsigned long long value) {
  return std::to_string(value);
}

std::string show(std::string_view value) {
  return std::string(value);
}

void report_difference(const char* file, int line, const char* text, const std::string& actual,
                       const std::string& expected, std::string_view note) {
  std::string what = std::string(text) + ": got " + actual + ", expected " + expected;
  if (!note.empty()) what += " (" + std::string(note) + ")";
  report_failure(file, line, what);
}

}  // namespace tsflannel::testing
