#include "engine/chain.hpp"

#include <algorithm>

#include "engine/ledger.hpp"
#include "layers/dense/columns.hpp"

namespace pylrp {
template <class T>
void relevance_through_chain(const std::vector<ChainLayer<T>>& layers, Matrix<const T> top, double* ledger,
                             const Threads& threads) {
  Matrix<const T> relevance = top;
  std::vector<kernels::Absorbed> absorbed;
  for (std::size_t l = layers.size(); l-- > 0;) {
    const ChainLayer<T>& layer = layers[l];
    const LoweredRule& rule = layer.rule->form(layer.nonnegative);
    if (ledger != nullptr) {
      absorbed.assign(static_cast<std::size_t>(top.rows), {});
    }
    if (rule.passes()) {
      for (Index i = 0; i < relevance.rows; ++i) {
        std::copy_n(relevance.row(i), relevance.cols, layer.result.row(i));
      }
    } else {
      const DenseJob<T> job{layer.dense,     &rule,        layer.bounds,
                            layer.constants, layer.input,  layer.output,
                            relevance,       layer.result, ledger ? absorbed.data() : nullptr};
      if (layer.columns) {
        dense_relevance_by_columns(job, layer.columns, threads, layer.flags);
      } else {
        dense_relevance(job, threads);
      }
    }
    if (ledger != nullptr) {
      const Matrix<const T> result{layer.result.data, layer.result.rows, layer.result.cols, layer.result.stride};
      write_page(row_sums(relevance, threads), row_sums(result, threads), {}, absorbed,
                 ledger + static_cast<Index>(l) * kLedgerColumns * relevance.rows);
    }
    relevance = {layer.result.data, layer.result.rows, layer.result.cols, layer.result.stride};
  }
}

template void relevance_through_chain<float>(const std::vector<ChainLayer<float>>&, Matrix<const float>, double*,
                                             const Threads&);
template void relevance_through_chain<double>(const std::vector<ChainLayer<double>>&, Matrix<const double>, double*,
                                              const Threads&);

}  // namespace pylrp
