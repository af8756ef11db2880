// Finds the kernels of contributions for the instruction set that dispatch.cpp has chosen.
#include "kernels/contributions.hpp"

#include "kernels/dispatch.hpp"

#if defined(__x86_64__) && (!defined(_WIN32) || defined(__clang__))  // as in dispatch.cpp
#define PYLRP_HAS_AVX 1
#endif

namespace pylrp::kernels {

// Defined by kernels.inl, beside the tables of dispatch.cpp.
#if defined(PYLRP_HAS_AVX)
extern const ContributionTable contributions_of_isa_avx2, contributions_of_isa_avx512;
extern const Isa isa_avx2, isa_avx512;
#endif

const ContributionTable* contributions() {
#if defined(PYLRP_HAS_AVX)
  if (&active() == &isa_avx512) {
    return &contributions_of_isa_avx512;
  }
  if (&active() == &isa_avx2) {
    return &contributions_of_isa_avx2;
  }
#endif
  return nullptr;
}

}  // namespace pylrp::kernels
