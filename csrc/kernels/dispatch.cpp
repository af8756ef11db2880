// Compiled without any instruction-set flag: this file runs before we know what the CPU can do.
#include "kernels/dispatch.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>

#if defined(_MSC_VER)
#include <intrin.h>
#endif

#if defined(PYLRP_HAS_BFDOT) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(PYLRP_HAS_BFDOT)
#include <sys/sysctl.h>
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

#if defined(PYLRP_HAS_AVX512_BF16)  // CMakeLists.txt
extern const Bfloat16Products bfloat16_avx512;
#endif
#if defined(PYLRP_HAS_BFDOT)
extern const Bfloat16Products bfloat16_neon;
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
#if defined(PYLRP_HAS_AVX512_BF16)
bool has_avx512_bf16() {  // leaf 7, second page, EAX
  int seven[4];
  __cpuidex(seven, 7, 1);
  return has_avx512() && (seven[0] & 1 << 5) != 0;
}
#endif
#else  // GCC's and Clang's builtin asks CPUID and, for AVX registers, the operating system (XGETBV)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#if defined(PYLRP_HAS_AVX512_BF16)
bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#endif
#endif
#endif

#if defined(PYLRP_HAS_BFDOT) && defined(__linux__)
bool has_bfdot() {
  constexpr unsigned long kBfloat16 = 1UL << 14;  // HWCAP2_BF16, which old headers lack
  return (getauxval(AT_HWCAP2) & kBfloat16) != 0;
}
#elif defined(PYLRP_HAS_BFDOT)
bool has_bfdot() {
  int has = 0;
  std::size_t size = sizeof has;
  return sysctlbyname("hw.optional.arm.FEAT_BF16", &has, &size, nullptr, 0) == 0 && has != 0;
}
#endif

// The instruction that goes with the active instruction set, or null.
const Bfloat16Products* instruction() {
#if defined(PYLRP_HAS_AVX512_BF16)
  if (&active() == &isa_avx512 && has_avx512_bf16()) {
    return &bfloat16_avx512;
  }
#endif
#if defined(PYLRP_HAS_BFDOT)
  if (&active() == &isa_baseline && has_bfdot()) {
    return &bfloat16_neon;
  }
#endif
  return nullptr;
}

Bfloat16Table with_instruction() {
  Bfloat16Table table = active().bfloat16;
  if (const Bfloat16Products* const tiles = instruction()) {
    static_cast<Bfloat16Products&>(table) = *tiles;
  }
  return table;
}

std::atomic<bool> emulated{false};

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

const Bfloat16Table& bfloat16_table() {
  static const Bfloat16Table best = with_instruction();
  return emulated.load(std::memory_order_relaxed) ? active().bfloat16 : best;
}

void emulate_bfloat16(bool always) { emulated.store(always, std::memory_order_relaxed); }

}  // namespace pylrp::kernels
