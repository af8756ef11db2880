// Asks for memory to be brought into the L2 cache before it is read.
#pragma once

#include "base/view.hpp"

namespace pylrp {

inline constexpr Index kCacheLine = 64;  // bytes

// Some rows of a matrix.
template <class T>
void fetch(Matrix<const T> block, Index begin, Index end) {
  for (Index i = begin; i < end; ++i) {
    for (Index j = 0; j < block.cols; j += kCacheLine / Index(sizeof(T))) {
      __builtin_prefetch(block.row(i) + j, 0, 2);
    }
  }
}

}  // namespace pylrp
