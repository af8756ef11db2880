// Compiled without any instruction-set flag: this file runs before we know what the CPU can do.
#include "kernels/dispatch.hpp"

#include <cstdlib>
#include <cstring>

#include "base/error.hpp"

namespace pylrp::kernels {

extern const Isa isa_baseline;
#if defined(__x86_64__)
extern const Isa isa_avx2;
extern const Isa isa_avx512;
#endif

namespace {

struct Entry {
  const Isa* isa;
  bool (*runs_here)();
};

// GCC's and Clang's builtin asks CPUID and, for AVX registers, the operating system (XGETBV).
const Entry kEntries[] = {
#if defined(__x86_64__)
    {&isa_avx512,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
     }},
    {&isa_avx2, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#endif
    {&isa_baseline, [] { return true; }},
};

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    text += (text.empty() ? "" : ", ") + name;
  }
  return text;
}

const Isa& choose() {
  const char* forced = std::getenv("PYLRP_ISA");
  for (const Entry& entry : kEntries) {
    if (forced == nullptr || *forced == '\0') {
      if (entry.runs_here()) {
        return *entry.isa;
      }
    } else if (std::strcmp(forced, entry.isa->name) == 0) {
      if (!entry.runs_here()) {
        throw Error("PYLRP_ISA=" + std::string(forced) + ": this machine has " + joined(supported()));
      }
      return *entry.isa;
    }
  }
  throw Error("PYLRP_ISA=" + std::string(forced) + ": this build has " + joined(built()));
}

}  // namespace

std::vector<std::string> built() {
  std::vector<std::string> names;
  for (const Entry& entry : kEntries) {
    names.emplace_back(entry.isa->name);
  }
  return names;
}

std::vector<std::string> supported() {
  std::vector<std::string> names;
  for (const Entry& entry : kEntries) {
    if (entry.runs_here()) {
      names.emplace_back(entry.isa->name);
    }
  }
  return names;
}

const Isa& active() {
  static const Isa& chosen = choose();
  return chosen;
}

}  // namespace pylrp::kernels
