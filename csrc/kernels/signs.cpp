// Finds the kernels of signs for the instruction set that dispatch.cpp has chosen.
#include "kernels/signs.hpp"

#include "kernels/dispatch.hpp"

#if defined(__x86_64__) && (!defined(_WIN32) || defined(__clang__))  // as in dispatch.cpp
#define PYLRP_HAS_AVX 1
#endif

namespace pylrp::kernels {

// Defined by kernels.inl, beside the tables of dispatch.cpp.
#if defined(PYLRP_HAS_AVX)
extern const SignTable signs_of_isa_avx512;
extern const Isa isa_avx512;
#endif

const SignTable* signs() {
#if defined(PYLRP_HAS_AVX)
  if (&active() == &isa_avx512) {
    return &signs_of_isa_avx512;
  }
#endif
  return nullptr;
}

}  // namespace pylrp::kernels
