#include "layers/dense/dense.hpp"

#include <algorithm>

#include "kernels/dispatch.hpp"

namespace pylrp {
namespace {

// Rows cost a pass over the weights for each entry of the relevance that is not zero, products a fixed price for
// packing and little for each sample. Measured on 4096 x 4096 and 1000 x 1000: the lines cross at a share of entries of
// about 0.15 + 2.5 / batch.
template <class T>
bool rows_win(const DenseJob<T>& job) {
  const Index batch = job.relevance.rows;
  if (batch <= few_samples(job.layer.weight)) {
    return true;
  }
  Index nonzero = 0;
  const Index most = job.relevance.cols * (15 * batch + 250) / 100;
  for (Index i = 0; i < batch; ++i) {
    const T* row = job.relevance.row(i);
    nonzero += std::count_if(row, row + job.relevance.cols, [](T r) { return r != 0; });
    if (nonzero > most) {
      return false;
    }
  }
  return true;
}

template <class T>
T map_bias(const BiasMap& map, T b) {
  if (map.kind == BiasKind::kSquare) {
    return b * b;
  }
  return static_cast<T>(b < 0 ? map.n : map.p) * b;
}

// Less work than this is done before the other threads are awake.
constexpr Index kWorthThreads = Index{1} << 21;

Threads threads_worth(Index products, const Threads& threads) { return threads.alone_if(products < kWorthThreads); }

// Rows of weights a task of the passes over all rows takes.
constexpr Index kRowsATask = 64;

}  // namespace

template <class T>
Index few_samples(Matrix<const T> weight) {
  // Weights that do not fit in cache are read from memory once for the whole batch.
  return weight.rows * weight.cols >= (Index{1} << 22) ? 6 : 3;
}

template <class T>
kernels::Weights<T> weights_of(const WeightMap& map) {
  using kernels::Read;
  const T p = static_cast<T>(map.p), n = static_cast<T>(map.n);
  if (map.kind != MapKind::kSigns) {
    return {map.kind == MapKind::kSquare ? Read::kSquare : Read::kOne, p, n};
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
  plan.rotated = rule.rotated;
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
    to.mask = from.mask == Mask::kAll ? 0 : (from.mask == Mask::kPositive ? 1 : -1);
    to.where_zero = from.guard == Guard::kWhereZero;
  }
  return plan;
}

template <class T>
const T* constant_input(Part part, const Bounds<T>& bounds) {
  return part == Part::kLow ? bounds.low : (part == Part::kHigh ? bounds.high : nullptr);
}

template <class T>
bool output_is_sum(const DenseJob<T>& job) {
  return job.output && job.rule->sum_is_plain_output() && sum_takes_whole_bias(*job.rule, job.layer.bias != nullptr);
}

bool sum_takes_whole_bias(const LoweredRule& rule, bool has_bias) {
  return std::all_of(rule.groups.begin(), rule.groups.end(), [&](const Denominator& group) {
    const bool whole_bias = group.bias.kind == BiasKind::kSigns && group.bias.p == 1 && group.bias.n == 1;
    return group.coef[0] == 1 && group.constants.empty() && (whole_bias || !has_bias);
  });
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
DenseConstants<T> prepare_biases(const DenseLayer<T>& layer, const LoweredRule& rule) {
  const Index n_out = layer.weight.rows;
  DenseConstants<T> constants;
  for (const Denominator& group : rule.groups) {
    auto& made = constants.groups.emplace_back();
    if (layer.bias != nullptr && group.bias.kind != BiasKind::kNone) {
      made.bias.reset(n_out);
      std::transform(layer.bias, layer.bias + n_out, made.bias.data(), [&](T b) { return map_bias(group.bias, b); });
    }
  }
  return constants;
}

template <class T>
DenseConstants<T> prepare_dense(const DenseLayer<T>& layer, const LoweredRule& rule, const Bounds<T>& bounds,
                                const Threads& threads) {
  const Index n_out = layer.weight.rows;
  DenseConstants<T> constants = prepare_biases(layer, rule);
  bool any = false;
  for (std::size_t g = 0; g < rule.groups.size(); ++g) {
    if (!rule.groups[g].constants.empty()) {
      any = true;
      constants.groups[g].base.reset(n_out);
    }
  }
  if (!any) {
    return constants;
  }
  const kernels::Table<T>& kernel = kernels::table<T>();
  parallel_for((n_out + kRowsATask - 1) / kRowsATask, threads, [&](Index task) {
    const Index first = task * kRowsATask, last = std::min(n_out, first + kRowsATask);
    for (Index j = first; j < last; ++j) {
      const T* row = layer.weight.row(j);
      for (std::size_t g = 0; g < rule.groups.size(); ++g) {
        const auto& made = constants.groups[g];
        if (made.base.data() == nullptr) {
          continue;
        }
        T base = made.bias.data() ? made.bias.data()[j] : T(0);
        for (const Term& term : rule.groups[g].constants) {
          T z = 0;
          kernel.rows_dot(1, &row, layer.weight.cols, weights_of<T>(term.map), constant_input(term.part, bounds), &z,
                          nullptr);
          base += static_cast<T>(term.sign) * z;
        }
        made.base.data()[j] = base;
      }
    }
  });
  return constants;
}

template <class T>
void dense_relevance(const DenseJob<T>& job, const Threads& threads) {
  const Threads some = threads_worth(job.relevance.rows * job.layer.weight.rows * job.layer.weight.cols, threads);
  if (rows_win(job)) {
    // The pass over the rows of few samples shares out by chunks, large ones only.
    relevance_by_rows(job, job.relevance.rows <= few_samples(job.layer.weight) ? threads : some);
  } else {
    relevance_by_products(job, some);
  }
}

template <class T>
void dense_forward(const DenseLayer<T>& layer, Matrix<const T> input, Matrix<T> output, const Threads& threads) {
  if (input.rows > few_samples(layer.weight)) {
    forward_by_products(layer, input, output,
                        threads_worth(input.rows * layer.weight.rows * layer.weight.cols, threads));
    return;
  }
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index n_out = layer.weight.rows;
  // One sample is a matter of reading the weights: a fourth of the work is worth a thread.
  const Threads some = threads_worth(4 * layer.weight.rows * layer.weight.cols * input.rows, threads);
  parallel_for((n_out + kRowsATask - 1) / kRowsATask, some, [&](Index task) {
    const Index first = task * kRowsATask, last = std::min(n_out, first + kRowsATask);
    constexpr int kAtOnce = 4;
    for (Index j = first; j < last; j += kAtOnce) {
      const int count = static_cast<int>(std::min<Index>(kAtOnce, last - j));
      const T* rows[kAtOnce];
      for (int r = 0; r < count; ++r) {
        rows[r] = layer.weight.row(j + r);
      }
      for (Index i = 0; i < input.rows; ++i) {
        T* const out = output.row(i) + j;
        for (int r = 0; r < count; ++r) {
          out[r] = layer.bias ? layer.bias[j + r] : T(0);
        }
        kernel.rows_dot(count, rows, layer.weight.cols, weights_of<T>(WeightMap{}), input.row(i), out, nullptr);
      }
    }
  });
}

#define PYLRP_INSTANTIATE(T)                                                                                \
  template Index few_samples<T>(Matrix<const T>);                                                           \
  template kernels::Weights<T> weights_of<T>(const WeightMap&);                                             \
  template kernels::Mix<T> mix_of<T>(const BackProduct&);                                                   \
  template kernels::Mixed<T> mixed_of<T>(const LoweredRule&);                                               \
  template kernels::Shares<T> shares_of<T>(const LoweredRule&, const T* const*, const T* const*, const T*); \
  template kernels::Shares<T> shares_at_column<T>(kernels::Shares<T>, Index);                               \
  template const T* constant_input<T>(Part, const Bounds<T>&);                                              \
  template bool output_is_sum<T>(const DenseJob<T>&);                                                       \
  template DenseConstants<T> prepare_biases<T>(const DenseLayer<T>&, const LoweredRule&);                   \
  template DenseConstants<T> prepare_dense<T>(const DenseLayer<T>&, const LoweredRule&, const Bounds<T>&,   \
                                              const Threads&);                                              \
  template void dense_relevance<T>(const DenseJob<T>&, const Threads&);                                     \
  template void dense_forward<T>(const DenseLayer<T>&, Matrix<const T>, Matrix<T>, const Threads&);
PYLRP_INSTANTIATE(float)
PYLRP_INSTANTIATE(double)
#undef PYLRP_INSTANTIATE

}  // namespace pylrp
