// Finds the kernels of recurrent layers for the instruction set that dispatch.cpp has chosen.
#include "kernels/cells.hpp"

#include "kernels/dispatch.hpp"

#if defined(__x86_64__) && (!defined(_WIN32) || defined(__clang__))  // as in dispatch.cpp
#define PYLRP_HAS_AVX 1
#endif

namespace pylrp::kernels {

// Defined by kernels.inl, beside the tables of dispatch.cpp.
extern const CellIsa cells_of_isa_baseline;
extern const Isa isa_baseline;
#if defined(PYLRP_HAS_AVX)
extern const CellIsa cells_of_isa_avx2, cells_of_isa_avx512;
extern const Isa isa_avx2, isa_avx512;
#endif

namespace {

const CellIsa& of_active() {
#if defined(PYLRP_HAS_AVX)
  if (&active() == &isa_avx512) {
    return cells_of_isa_avx512;
  }
  if (&active() == &isa_avx2) {
    return cells_of_isa_avx2;
  }
#endif
  return cells_of_isa_baseline;
}

}  // namespace

template <>
const CellTable<float>& cells<float>() {
  static const CellTable<float>& chosen = of_active().f32;
  return chosen;
}
template <>
const CellTable<double>& cells<double>() {
  static const CellTable<double>& chosen = of_active().f64;
  return chosen;
}

}  // namespace pylrp::kernels
