#include "engine/chain.hpp"

#include <algorithm>

#include "kernels/dispatch.hpp"

namespace pylrp {
namespace {

// One layer's page of the ledger: (kLedgerColumns, batch).
template <class T>
void write_ledger(Matrix<const T> relevance, Matrix<T> result, const std::vector<kernels::Absorbed>& absorbed,
                  double* page) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index batch = relevance.rows;
  const auto at = [&](LedgerColumn column, Index i) -> double& { return page[column * batch + i]; };
  for (Index i = 0; i < batch; ++i) {
    const kernels::Absorbed& lost = absorbed[static_cast<std::size_t>(i)];
    at(kIncoming, i) = kernel.sum(relevance.cols, relevance.row(i));
    at(kOutgoing, i) = kernel.sum(result.cols, result.row(i));
    at(kBias, i) = lost.bias;
    at(kStabilizer, i) = lost.stabilizer;
    at(kPadding, i) = 0;
    at(kDead, i) = lost.dead;
    at(kBatchNorm, i) = 0;
    at(kRounding, i) = at(kIncoming, i) - at(kOutgoing, i) - lost.bias - lost.stabilizer - lost.dead;
  }
}

}  // namespace

CompiledRule::CompiledRule(Rule rule_)
    : rule(std::move(rule_)), any_input(lower(rule, false)), nonnegative_input(lower(rule, true)) {}

template <class T>
void relevance_through_chain(const std::vector<ChainLayer<T>>& layers, Matrix<const T> top, double* ledger,
                             const Threads& threads) {
  Matrix<const T> relevance = top;
  std::vector<kernels::Absorbed> absorbed;
  for (std::size_t l = layers.size(); l-- > 0;) {
    const ChainLayer<T>& layer = layers[l];
    const LoweredRule& rule = layer.rule->for_input(layer.nonnegative);
    if (ledger != nullptr) {
      absorbed.assign(static_cast<std::size_t>(top.rows), {});
    }
    if (rule.passes()) {
      for (Index i = 0; i < relevance.rows; ++i) {
        std::copy_n(relevance.row(i), relevance.cols, layer.result.row(i));
      }
    } else {
      dense_relevance<T>({layer.dense, &rule, layer.bounds, layer.constants, layer.input, layer.output, relevance,
                          layer.result, ledger ? absorbed.data() : nullptr},
                         threads);
    }
    if (ledger != nullptr) {
      write_ledger(relevance, layer.result, absorbed, ledger + static_cast<Index>(l) * kLedgerColumns * relevance.rows);
    }
    relevance = {layer.result.data, layer.result.rows, layer.result.cols, layer.result.stride};
  }
}

template void relevance_through_chain<float>(const std::vector<ChainLayer<float>>&, Matrix<const float>, double*,
                                             const Threads&);
template void relevance_through_chain<double>(const std::vector<ChainLayer<double>>&, Matrix<const double>, double*,
                                              const Threads&);

}  // namespace pylrp
