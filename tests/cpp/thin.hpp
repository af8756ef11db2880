// Operands that are mostly zeros.
#pragma once

#include "base/view.hpp"
#include "reference.hpp"

namespace pylrp {

inline constexpr double kShares[] = {0, -1, 0.1, 0.5, 0.9, 1};  // -1: one entry

// Zeros in all but a share of the entries, some of them negative.
template <class T>
void thin(Matrix<T> x, double share, unsigned seed) {
  Random random(seed);
  for (Index i = 0; i < x.rows; ++i) {
    for (Index j = 0; j < x.cols; ++j) {
      const bool one = i == x.rows / 2 && j == x.cols / 3;
      if (share < 0 ? !one : (random() + 1) / 2 >= share) {
        x.row(i)[j] = j % 3 == 0 ? T(-0.0) : T(0);
      }
    }
  }
}

}  // namespace pylrp
