#include "products/operands.hpp"

#include <atomic>
#include <cstring>

namespace pylrp {
namespace {

std::atomic<int> forced{static_cast<int>(Bfloat16Path::kBest)};

}  // namespace

void force_bfloat16_path(Bfloat16Path path) {
  kernels::emulate_bfloat16(path == Bfloat16Path::kEmulatedWords);
  forced.store(static_cast<int>(path), std::memory_order_relaxed);
}

bool bfloat16_in_words() {
  switch (static_cast<Bfloat16Path>(forced.load(std::memory_order_relaxed))) {
    case Bfloat16Path::kWords:
    case Bfloat16Path::kEmulatedWords:
      return true;
    case Bfloat16Path::kNumbers:
      return false;
    case Bfloat16Path::kBest:
      break;
  }
  // Emulated words take 1.7 to 2 times as long as numbers, which are as good (AVX2, products without zeros).
  return std::strcmp(kernels::bfloat16_table().name, "emulated") != 0;
}

template <class T>
void Operands<T>::spoilt(const T* panel, Index places, T* to) const {
  static constexpr T kZeros[kReductionBlock] = {};
  const Index width = kernels::table<T>().tile_cols;
  std::fill_n(to, width, T(0));
  for (Index first = 0; first < places; first += kReductionBlock) {
    tile(1, std::min(kReductionBlock, places - first), kZeros, panel + first * width, width, true, to);
  }
}

template class Operands<float>;
template class Operands<double>;

}  // namespace pylrp
