// Sums in an order that does not depend on the number of threads.
#pragma once

#include "base/view.hpp"

namespace pylrp {

// The sum of n terms in eight columns: in a fixed order, without one long chain of additions.
template <class Term>
double sum_in_columns(Index n, Term term) {
  double part[8] = {};
  Index i = 0;
  for (; i + 8 <= n; i += 8) {
    for (Index k = 0; k < 8; ++k) {
      part[k] += term(i + k);
    }
  }
  for (; i < n; ++i) {
    part[0] += term(i);
  }
  return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

}  // namespace pylrp
