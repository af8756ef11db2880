#include "engine/network.hpp"

#include <algorithm>

#include "kernels/dispatch.hpp"

namespace pylrp {

template <class T>
Plan<T>::Plan(std::vector<Stage<T>> stages, const std::vector<LayerRule>& rules, const Threads& threads)
    : stages_(std::move(stages)), rules_(rules) {
  for (std::size_t l = 0; l < stages_.size(); ++l) {
    // Constant terms do not depend on the sign of the input: one set serves both lowered forms.
    constants_.push_back(prepare_dense(stages_[l].dense, rules_[l].rule->any_input, rules_[l].bounds, threads));
  }
}

// Whether z must be stored beside the activation. A rule that can reuse z finds it in the output of the last stage
// and, where relevance vanishes with the activation, behind a ReLU.
template <class T>
bool Plan<T>::keeps_output(std::size_t stage) const {
  if (stages_[stage].activations.empty() || !rules_[stage].rule->any_input.sum_is_plain_output()) {
    return false;
  }
  const bool last = stage + 1 == stages_.size();
  return last || !(stages_[stage].only_relu() && rules_[stage + 1].rule->any_input.vanishes_with_input());
}

template <class T>
typename Plan<T>::Pass Plan<T>::forward(Matrix<const T> input, Matrix<T> output, const Threads& threads) const {
  Pass pass;
  pass.activations.push_back(input);
  const Index batch = input.rows;
  const auto make = [&](Index width) {
    pass.memory.emplace_back(batch * width);
    return Matrix<T>{pass.memory.back().data(), batch, width, width};
  };
  const auto read_only = [](Matrix<T> m) { return Matrix<const T>{m.data, m.rows, m.cols, m.stride}; };
  for (std::size_t l = 0; l < stages_.size(); ++l) {
    const bool last = l + 1 == stages_.size();
    const Index width = stages_[l].dense.weight.rows;
    const Matrix<T> a = last ? output : make(width);
    const Matrix<T> z = keeps_output(l) ? make(width) : a;
    dense_forward(stages_[l].dense, pass.activations.back(), z, threads);
    Matrix<const T> from = read_only(z);
    for (const Activation& f : stages_[l].activations) {
      activate(f, from, a, threads);
      from = read_only(a);
    }
    const bool holds = keeps_output(l) || stages_[l].activations.empty() ||
                       (!last && stages_[l].only_relu() && rules_[l + 1].rule->any_input.vanishes_with_input());
    pass.kept.push_back(holds ? read_only(z) : Matrix<const T>{});
    pass.activations.push_back(read_only(a));
  }
  return pass;
}

template <class T>
void Plan<T>::relevance(const Pass& pass, Matrix<const T> top, const std::vector<Matrix<T>>& results, double* ledger,
                        const Threads& threads) const {
  std::vector<ChainLayer<T>> layers(stages_.size());
  for (std::size_t l = 0; l < stages_.size(); ++l) {
    bool nonnegative = l > 0 && !stages_[l - 1].activations.empty() && stages_[l - 1].activations.back().nonnegative();
    const Matrix<const T> input = pass.activations[l];
    if (!nonnegative) {
      nonnegative = true;
      for (Index i = 0; i < input.rows && nonnegative; ++i) {
        nonnegative = !(kernels::table<T>().scan(input.cols, input.row(i)) & kernels::kHasNegative);
      }
    }
    layers[l] = {stages_[l].dense, rules_[l].rule, rules_[l].bounds, nonnegative,
                 &constants_[l],   input,          pass.kept[l],     results[l]};
  }
  relevance_through_chain(layers, top, ledger, threads);
}

template class Plan<float>;
template class Plan<double>;

}  // namespace pylrp
