// From a lowered rule to what the kernels take: weight maps, denominators, factors of the input; and what the
// denominators hold besides products with the input. For the layers.
#pragma once

#include <vector>

#include "base/buffer.hpp"
#include "base/rule.hpp"
#include "kernels/table.hpp"
#include "rules/lower.hpp"

namespace pylrp {

template <class T>
kernels::Weights<T> weights_of(const WeightMap& map);
template <class T>
kernels::Mix<T> mix_of(const BackProduct& product);
// All back products of a rule; where their sums lie is the caller's to say.
template <class T>
kernels::Mixed<T> mixed_of(const LoweredRule& rule);
// The denominators of a rule, base and bias per group may be null.
template <class T>
kernels::Shares<T> shares_of(const LoweredRule& rule, const T* const* base, const T* const* bias, const T* plain_base);
// The same from a column on.
template <class T>
kernels::Shares<T> shares_at_column(kernels::Shares<T> shares, Index column);
// How the kernels name a part of the input: +1 the positive one, -1 the negative one, 0 the others.
int sign_of(Part part);
// The input row a constant term multiplies with: low, high or (null) ones.
template <class T>
const T* constant_input(Part part, const Bounds<T>& bounds);

// What the denominators hold besides the products: per group rho_b(b), and the constant terms with it.
template <class T>
struct GroupConstants {
  struct OfGroup {
    Buffer<T> bias;  // one an output, empty where the rule takes no bias
    Buffer<T> base;  // one an output, empty where there are no constant terms: then the bias is all
  };
  std::vector<OfGroup> groups;
};
// The biases alone: reads no weights. bias(size) may be null.
template <class T>
GroupConstants<T> prepare_biases(const T* bias, Index size, const LoweredRule& rule);

inline void add_absorbed(const kernels::Absorbed& part, kernels::Absorbed* total) {
#define PYLRP_ADD(name) total->name += part.name;
  PYLRP_LEDGER_CAUSES(PYLRP_ADD)
#undef PYLRP_ADD
}
// Of tasks, so many a row: to their rows, in order.
inline void add_absorbed(const std::vector<kernels::Absorbed>& parts, Index tasks_a_row, kernels::Absorbed* rows) {
  for (std::size_t task = 0; task < parts.size(); ++task) {
    add_absorbed(parts[task], &rows[static_cast<Index>(task) / tasks_a_row]);
  }
}

}  // namespace pylrp
