// R / stab(z) element by element, for the layers that carry their own formula (the kernels have it for the others).
#pragma once

#include <algorithm>
#include <cmath>

#include "base/rule.hpp"
#include "kernels/table.hpp"
#include "rules/lower.hpp"

namespace pylrp {

// The stabiliser of a rule with one group (Norm, epsilon).
template <class T>
struct Stabilizer {
  T epsilon = T(1e-6);
  bool where_zero = false;

  explicit Stabilizer(const CompiledRule* rule) {
    if (rule != nullptr && !rule->rule().groups.empty()) {
      epsilon = static_cast<T>(rule->rule().groups[0].epsilon);
      where_zero = rule->rule().groups[0].guard == Guard::kWhereZero;
    }
  }

  // The same for the kernels, of the sum of some arrays.
  kernels::Shares<T> of_sum(int sums) const {
    kernels::Shares<T> plan{};
    plan.sums = sums;
    plan.groups = 1;
    std::fill_n(plan.group[0].coef, sums, T(1));
    plan.group[0].coefficient = T(1);
    plan.group[0].epsilon = epsilon;
    plan.group[0].where_zero = where_zero;
    return plan;
  }

  // As in kernels/elementwise.inl: nothing goes where there is no receiver; what gets lost is written down.
  T share(T r, T z, kernels::Absorbed* lost) const {
    if (r == 0) {
      return 0;
    }
    const T d = where_zero ? (z == 0 ? epsilon : z) : (z < 0 ? z - epsilon : z + epsilon);
    const T q = r / d;
    if (z == 0 || (std::isinf(q) && std::isfinite(d))) {
      lost->dead += static_cast<double>(r);
      return d == 0 || std::isinf(q) ? T(0) : q;
    }
    if (epsilon != 0) {
      lost->stabilizer += static_cast<double>(r - z * q);
    }
    return q;
  }
};

}  // namespace pylrp
