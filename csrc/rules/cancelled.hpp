// Denominators out of u = W a + b and v = |W| |a| + |b| (lower.hpp, by_magnitude) that are a small part of v have lost
// digits: their contributions are summed one by one, and sent the same way.
#pragma once

#include <algorithm>
#include <cmath>

#include "base/view.hpp"
#include "rules/lower.hpp"

namespace pylrp {

// Sums of fewer terms are too often of one sign only, which leaves nothing but rounding of the other.
inline bool has_terms_enough(const LoweredRule& by_magnitude, Index terms) {
  return !by_magnitude.may_cancel || terms >= 16;
}

// Whether a denominator has lost more than five bits.
inline bool is_cancelled(const LoweredRule& by_magnitude, double u, double v) {
  return std::any_of(by_magnitude.groups.begin(), by_magnitude.groups.end(), [&](const Denominator& group) {
    return 32 * std::abs(group.coef[0] * u + group.coef[1] * v) < std::abs(group.coef[1]) * v;
  });
}

// What contributions above and below zero sum up to, or are multiplied with.
template <class T>
struct BySign {
  T above = 0, below = 0;
};

// Contributions w x of weights that lie `step` apart.
template <class T>
void add_contributions(Index n, const T* w, Index step, const T* x, BySign<double>* sums) {
  for (Index i = 0; i < n; ++i) {
    const double c = static_cast<double>(w[i * step]) * static_cast<double>(x[i]);
    (c > 0 ? sums->above : sums->below) += c;
  }
}
template <class T>
void send_contributions(Index n, const T* w, Index step, const T* x, BySign<T> share, T* to) {
  for (Index i = 0; i < n; ++i) {
    const T c = w[i * step] * x[i];
    to[i] += c * (c > 0 ? share.above : share.below);
  }
}

}  // namespace pylrp
