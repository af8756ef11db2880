#include "layers/dense/dense.hpp"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/dispatch.hpp"
#include "products/blocking.hpp"

namespace pylrp {
namespace {

// Rows of weights a task of the passes over all rows takes.
constexpr Index kRowsATask = 64;

// Weights in bfloat16 as numbers.
template <class T>
Matrix<const T> expand(Matrix<const kernels::Bfloat16> half, T* to, const Threads& threads) {
  if constexpr (std::is_same_v<T, float>) {
    parallel_for((half.rows + kRowsATask - 1) / kRowsATask, threads, [&](Index task) {
      for (Index j = task * kRowsATask; j < std::min(half.rows, (task + 1) * kRowsATask); ++j) {
        const kernels::Bfloat16* const row = half.row(j);
        constexpr T one = 1;
        std::fill_n(to + j * half.cols, half.cols, T(0));
        kernels::bfloat16_table().rows.axpy(1, &row, half.cols, {kernels::Read::kPlain, 1, 1}, &one, to + j * half.cols,
                                            true);
      }
    });
  }
  return {to, half.rows, half.cols, half.cols};
}

// A forward pass of few samples; W: how a row is read, picked by row(number, where it may be made).
template <class T, class W, class Row>
void forward_by_rows(const DenseWeights<T>& layer, Matrix<const T> input, Matrix<T> output, Index row_size, Row row,
                     const Threads& threads) {
  const kernels::RowProducts<T, W>& products = kernels::row_products<T, W>();
  const kernels::Weights<T> as_it_is = weights_of<T>(WeightMap{});
  const Index n_out = layer.weight.rows;
  parallel_for((n_out + kRowsATask - 1) / kRowsATask, threads, [&](Index task) {
    const Index first = task * kRowsATask, last = std::min(n_out, first + kRowsATask);
    constexpr int kAtOnce = 8;
    const Buffer<W> made(kAtOnce * row_size);
    for (Index j = first; j < last; j += kAtOnce) {
      const int count = static_cast<int>(std::min<Index>(kAtOnce, last - j));
      const W* rows[kAtOnce];
      for (int r = 0; r < count; ++r) {
        rows[r] = row(j + r, made.data() + r * row_size);
      }
      for (Index i = 0; i < input.rows; ++i) {
        T* const out = output.row(i) + j;
        for (int r = 0; r < count; ++r) {
          out[r] = layer.bias ? layer.bias[j + r] : T(0);
        }
        products.dot(count, rows, layer.weight.cols, as_it_is, input.row(i), out, i == 0);
      }
    }
  });
}

}  // namespace

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
    nonzero += kernels::table<T>().nonzeros(job.relevance.cols, job.relevance.row(i), 0);
    if (nonzero > most) {
      return false;
    }
  }
  return true;
}

Threads threads_worth(Index products, const Threads& threads) {
  return threads.alone_if(products < kMinProductsForThreadsDense);
}

template <class T>
Index few_samples(Matrix<const T> weight) {
  // Weights that do not fit in cache are read from memory once for the whole batch.
  return weight.rows * weight.cols >= (Index{1} << 22) ? 6 : 3;
}

template <class T>
bool output_is_sum(const DenseJob<T>& job) {
  return job.output && job.rule->sum_is_plain_output() && sum_takes_whole_bias(*job.rule, job.layer.bias != nullptr);
}

template <class T>
const kernels::Bfloat16* HalfRows<T>::row(Index index, kernels::Bfloat16* made) const {
  if (layer_.half) {
    return layer_.half.row(index);
  }
  if constexpr (std::is_same_v<T, float>) {
    kernels::bfloat16_table().join(layer_.weight.cols, layer_.weight.row(index), reinterpret_cast<float*>(made));
  }
  return made;
}

template <class T>
GroupConstants<T> prepare_dense(const DenseWeights<T>& layer, const LoweredRule& rule, const Bounds<T>& bounds,
                                const Threads& threads) {
  const Index n_out = layer.weight.rows;
  GroupConstants<T> constants = prepare_biases(layer.bias, n_out, rule);
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
    const Buffer<T> rounded(threads.bfloat16 ? layer.weight.cols : 0);
    for (Index j = first; j < last; ++j) {
      const T* row = layer.weight.row(j);
      if constexpr (std::is_same_v<T, float>) {
        if (threads.bfloat16) {
          kernels::bfloat16_table().round(layer.weight.cols, row, rounded.data());
          row = rounded.data();
        }
      }
      for (std::size_t g = 0; g < rule.groups.size(); ++g) {
        const auto& made = constants.groups[g];
        if (made.base.data() == nullptr) {
          continue;
        }
        T base = made.bias.data() ? made.bias.data()[j] : T(0);
        for (const Term& term : rule.groups[g].constants) {
          T z = 0;
          kernel.rows.dot(1, &row, layer.weight.cols, weights_of<T>(term.map), constant_input(term.part, bounds), &z,
                          true);
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
    DenseJob<T> least = job;
    const Buffer<T> expanded(job.layer.weight ? 0 : job.layer.weight.rows * job.layer.weight.cols);
    if (!job.layer.weight) {
      least.layer.weight = expand(job.layer.half, expanded.data(), some);
    }
    relevance_by_products(least, some);
  }
}

template <class T>
void dense_forward(const DenseWeights<T>& layer, Matrix<const T> input, Matrix<T> output, const Threads& threads) {
  if (input.rows > few_samples(layer.weight)) {
    forward_by_products(layer, input, output,
                        threads_worth(input.rows * layer.weight.rows * layer.weight.cols, threads));
    return;
  }
  // With few samples this is memory-bound: threads pay off at a quarter of the usual work.
  const Threads some = threads_worth(4 * layer.weight.rows * layer.weight.cols * input.rows, threads);
  if constexpr (std::is_same_v<T, float>) {
    if (threads.bfloat16) {
      const HalfRows<T> half(layer);
      const auto row = [&](Index j, kernels::Bfloat16* made) { return half.row(j, made); };
      return forward_by_rows<T, kernels::Bfloat16>(layer, input, output, half.row_size(), row, some);
    }
  }
  forward_by_rows<T, T>(layer, input, output, 0, [&](Index j, T*) { return layer.weight.row(j); }, some);
}

#define PYLRP_INSTANTIATE(T)                                                                                \
  template class HalfRows<T>;                                                                               \
  template bool rows_win<T>(const DenseJob<T>&);                                                            \
  template Index few_samples<T>(Matrix<const T>);                                                           \
  template bool output_is_sum<T>(const DenseJob<T>&);                                                       \
  template GroupConstants<T> prepare_dense<T>(const DenseWeights<T>&, const LoweredRule&, const Bounds<T>&, \
                                              const Threads&);                                              \
  template void dense_relevance<T>(const DenseJob<T>&, const Threads&);                                     \
  template void dense_forward<T>(const DenseWeights<T>&, Matrix<const T>, Matrix<T>, const Threads&);
PYLRP_INSTANTIATE(float)
PYLRP_INSTANTIATE(double)
#undef PYLRP_INSTANTIATE

}  // namespace pylrp
