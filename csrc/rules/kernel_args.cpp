#include "rules/kernel_args.hpp"

#include <algorithm>

namespace pylrp {
namespace {

template <class T>
T map_bias(const BiasMap& map, T b) {
  switch (map.kind) {
    case BiasKind::kSquare:
      return b * b;
    case BiasKind::kSigns:
      return static_cast<T>(b < 0 ? map.n : map.p) * b;
    case BiasKind::kNone:
      break;
  }
  return 0;
}

int sign_of(Mask mask) {
  switch (mask) {
    case Mask::kAll:
      break;
    case Mask::kPositive:
      return 1;
    case Mask::kNegative:
      return -1;
  }
  return 0;
}

}  // namespace

int sign_of(Part part) {
  switch (part) {
    case Part::kPositive:
      return 1;
    case Part::kNegative:
      return -1;
    case Part::kInput:
    case Part::kOne:
    case Part::kLow:
    case Part::kHigh:
    case Part::kMagnitude:
      break;
  }
  return 0;
}

template <class T>
kernels::Weights<T> weights_of(const WeightMap& map) {
  using kernels::Read;
  const T p = static_cast<T>(map.p), n = static_cast<T>(map.n);
  switch (map.kind) {
    case MapKind::kSquare:
      return {Read::kSquare, p, n};
    case MapKind::kOne:
      return {Read::kOne, p, n};
    case MapKind::kSigns:
      break;
  }
  if (map.p == 1 && map.n == 1) {
    return {Read::kPlain, p, n};
  }
  if (map.p == 1 && map.n == 0) {
    return {Read::kPositive, p, n};
  }
  if (map.p == 0 && map.n == 1) {
    return {Read::kNegative, p, n};
  }
  return {Read::kMixed, p, n};
}

template <class T>
kernels::Mix<T> mix_of(const BackProduct& product) {
  const auto factor = [&](Part part) { return static_cast<T>(product.factor[static_cast<std::size_t>(part)]); };
  return {factor(Part::kInput), factor(Part::kPositive), factor(Part::kNegative),
          factor(Part::kOne),   factor(Part::kLow),      factor(Part::kHigh)};
}

template <class T>
kernels::Mixed<T> mixed_of(const LoweredRule& rule) {
  kernels::Mixed<T> mixed;
  mixed.count = 0;
  for (const BackProduct& back : rule.back) {
    mixed.mix[mixed.count++] = mix_of<T>(back);
  }
  return mixed;
}

template <class T>
kernels::Shares<T> shares_of(const LoweredRule& rule, const T* const* base, const T* const* bias, const T* plain_base) {
  kernels::Shares<T> plan{};
  plan.sums = static_cast<int>(rule.sums.size());
  plan.groups = static_cast<int>(rule.groups.size());
  plan.masked = rule.masked;
  plan.half_sum_and_difference = rule.half_sum_and_difference;
  plan.plain_base = plain_base;
  for (std::size_t q = 0; q < rule.sums.size(); ++q) {
    plan.plain[q] = static_cast<T>(rule.plain[q]);
  }
  for (std::size_t g = 0; g < rule.groups.size(); ++g) {
    const Denominator& from = rule.groups[g];
    kernels::Share<T>& to = plan.group[g];
    for (std::size_t q = 0; q < rule.sums.size(); ++q) {
      to.coef[q] = static_cast<T>(from.coef[q]);
    }
    to.base = base[g];
    to.bias = bias[g];
    to.coefficient = static_cast<T>(from.coefficient);
    to.epsilon = static_cast<T>(from.epsilon);
    to.mask = sign_of(from.mask);
    to.where_zero = from.guard == Guard::kWhereZero;
  }
  return plan;
}

template <class T>
const T* constant_input(Part part, const Bounds<T>& bounds) {
  switch (part) {
    case Part::kLow:
      return bounds.low;
    case Part::kHigh:
      return bounds.high;
    case Part::kInput:
    case Part::kPositive:
    case Part::kNegative:
    case Part::kOne:
    case Part::kMagnitude:
      break;
  }
  return nullptr;
}

template <class T>
kernels::Shares<T> shares_at_column(kernels::Shares<T> plan, Index column) {
  for (int g = 0; g < plan.groups; ++g) {
    plan.group[g].base += plan.group[g].base ? column : 0;
    plan.group[g].bias += plan.group[g].bias ? column : 0;
  }
  plan.plain_base += plan.plain_base ? column : 0;
  return plan;
}

template <class T>
GroupConstants<T> prepare_biases(const T* bias, Index size, const LoweredRule& rule) {
  GroupConstants<T> constants;
  for (const Denominator& group : rule.groups) {
    auto& made = constants.groups.emplace_back();
    if (bias != nullptr && group.bias.kind != BiasKind::kNone) {
      made.bias.reset(size);
      std::transform(bias, bias + size, made.bias.data(), [&](T b) { return map_bias(group.bias, b); });
    }
  }
  return constants;
}

#define PYLRP_INSTANTIATE(T)                                                                                \
  template kernels::Weights<T> weights_of<T>(const WeightMap&);                                             \
  template kernels::Mix<T> mix_of<T>(const BackProduct&);                                                   \
  template kernels::Mixed<T> mixed_of<T>(const LoweredRule&);                                               \
  template kernels::Shares<T> shares_of<T>(const LoweredRule&, const T* const*, const T* const*, const T*); \
  template kernels::Shares<T> shares_at_column<T>(kernels::Shares<T>, Index);                               \
  template const T* constant_input<T>(Part, const Bounds<T>&);                                              \
  template GroupConstants<T> prepare_biases<T>(const T*, Index, const LoweredRule&);
PYLRP_INSTANTIATE(float)
PYLRP_INSTANTIATE(double)
#undef PYLRP_INSTANTIATE

}  // namespace pylrp
