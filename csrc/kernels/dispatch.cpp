// Compiled without any instruction-set flag: this file runs before we know what the CPU can do.
#include "kernels/dispatch.hpp"

#include <cstdlib>
#include <cstring>

#if defined(_MSC_VER)
#include <intrin.h>
#endif

#include "base/error.hpp"

// GCC for Windows aligns the stack to 16 bytes, whatever a function needs, so that it can't have AVX's vectors there.
#if defined(__x86_64__) && (!defined(_WIN32) || defined(__clang__))
#define PYLRP_HAS_AVX 1
#endif

namespace pylrp::kernels {

extern const Isa isa_baseline;
#if defined(PYLRP_HAS_AVX)
extern const Isa isa_avx2;
extern const Isa isa_avx512;
#endif

namespace {

struct Entry {
  const Isa* isa;
  bool (*runs_here)();
};

#if defined(PYLRP_HAS_AVX)
#if defined(_MSC_VER)  // clang-cl's builtin is in a library that Microsoft's linker does not look into
// CPUID's leaf 7, EBX, if the operating system saves the registers of this mask (XGETBV) and there is FMA; else 0.
unsigned leaf_7(unsigned long long saved) {
  int one[4], seven[4];
  __cpuid(one, 1);
  constexpr int kFma = 1 << 12, kXsave = 1 << 27;
  if ((one[2] & kFma) == 0 || (one[2] & kXsave) == 0 || (_xgetbv(0) & saved) != saved) {
    return 0;
  }
  __cpuidex(seven, 7, 0);
  return static_cast<unsigned>(seven[1]);
}
bool has_avx512() {
  constexpr unsigned kWanted = 1U << 16 | 1U << 17 | 1U << 30 | 1U << 31;  // F, DQ, BW, VL
  return (leaf_7(0xe6) & kWanted) == kWanted;
}
bool has_avx2() { return (leaf_7(0x6) & 1U << 5) != 0; }
#else  // GCC's and Clang's builtin asks CPUID and, for AVX registers, the operating system (XGETBV)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif
#endif

const Entry kEntries[] = {
#if defined(PYLRP_HAS_AVX)
    {&isa_avx512, has_avx512},
    {&isa_avx2, has_avx2},
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
