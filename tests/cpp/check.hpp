// A test framework in one page. TEST(name) { CHECK(condition); } registers a test; the program runs them all, or those
// whose name, or whose file's, holds its argument, and fails where a check fails or nothing was checked.
#pragma once

#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

namespace check {

struct Test {
  const char* name;
  const char* file;
  void (*run)();
};
inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}
inline long checks = 0, failures = 0, shown = 0;  // shown: failures of the test that runs, the first few are enough
inline std::string context;                       // what is looked at just now, for the message

inline bool that(bool passed, const char* text, const char* file, int line) {
  ++checks;
  if (!passed && ++failures && ++shown <= 8) {
    std::printf("%s:%d: CHECK(%s) failed; %s\n", file, line, text, context.c_str());
  }
  return passed;
}

// wanted: part of a test's or a file's name, or "i/n" for each n-th test from the i-th on, counted from 1; null: all.
inline int run(const char* wanted) {
  std::size_t part = 1, parts = 1, position = 0;
  const bool in_parts = wanted != nullptr && std::sscanf(wanted, "%zu/%zu", &part, &parts) == 2;
  for (const Test& test : tests()) {
    const bool named = wanted == nullptr || std::strstr(test.name, wanted) || std::strstr(test.file, wanted);
    if (in_parts ? position++ % parts != part - 1 : !named) {
      continue;
    }
    const long checks_before = checks, failures_before = failures;
    context.clear();
    shown = 0;
    const auto began = std::chrono::steady_clock::now();
    try {
      test.run();
    } catch (const std::exception& error) {
      std::printf("%s: exception: %s; %s\n", test.name, error.what(), context.c_str());
      ++failures;
    }
    failures += checks == checks_before ? 1 : 0;
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    std::printf("%-40s %8ld checks %6.1f s%s\n", test.name, checks - checks_before, took.count(),
                failures == failures_before ? "" : "  FAILED");
  }
  std::printf("%ld checks, %ld failures\n", checks, failures);
  return failures == 0 && checks > 0 ? 0 : 1;
}

}  // namespace check

#define TEST(name)                                                                                    \
  static void name();                                                                                 \
  static const bool name##_is_registered = (check::tests().push_back({#name, __FILE__, name}), true); \
  static void name()
#define CHECK(condition) check::that(condition, #condition, __FILE__, __LINE__)
