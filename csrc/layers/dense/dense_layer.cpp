#include "layers/dense/dense_layer.hpp"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "kernels/dispatch.hpp"
#include "layers/registry.hpp"
#include "products/blocking.hpp"
#include "rules/cancelled.hpp"

namespace pylrp {
namespace {

// Constant terms do not depend on the sign of the input; which groups there are depends on that of the output.
template <class T>
struct Forms : Prepared {
  struct OfOutput {  // of any sign, of a positive one
    GroupConstants<T> constants;
    LoweredRule magnitudes;  // by_magnitude(), or nothing
    GroupConstants<T> magnitude_constants;
  };
  OfOutput of[2];
};

// The rule by the output and |W| |a|, where their biases are the rule's.
template <class T>
bool magnitudes_of(const DenseWeights<T>& dense, const LoweredRule& rule, LoweredRule* made) {
  LoweredRule found;
  if (!by_magnitude(rule, &found) || (dense.bias != nullptr && !found.bias_by_sign) ||
      !has_terms_enough(found, dense.weight.cols)) {
    return false;
  }
  *made = std::move(found);
  return true;
}
// Whether it serves inputs >= 0, too: gamma alone.
bool serves_nonnegative(const LoweredRule& magnitudes) {
  return magnitudes.half_sum_and_difference && !magnitudes.may_cancel;
}

// Samples [first, first + count) with a row a position.
template <class M>
M by_position(const M& m, Index first, Index count, Index positions) {
  return m ? M{m.row(first), count * positions, m.cols / positions, positions == 1 ? m.stride : m.cols / positions} : m;
}

template <class M>
bool is_contiguous(const M& m) {
  return !m || m.stride == m.cols;
}

}  // namespace

template <class T>
DenseLayer<T>::DenseLayer(const DenseWeights<T>& dense, Index positions) : dense_(dense), positions_(positions) {
  require_fit(positions > 0, "the positions of a dense layer");
}

template <class T>
template <class Body>
void DenseLayer<T>::each_run(Index samples, bool together, Body body) const {
  const Index step = together || positions_ == 1 ? samples : 1;
  for (Index first = 0; first < samples; first += step) {
    body(first, step);
  }
}

template <class T>
DenseWeights<T> DenseLayer<T>::weights_for(Index rows, const Threads& threads) const {
  DenseWeights<T> weights = dense_;
  if constexpr (std::is_same_v<T, float>) {
    if (threads.bfloat16 && rows <= few_samples(dense_.weight)) {
      const Index n_out = dense_.weight.rows, stride = (dense_.weight.cols + 1) / 2 * 2;
      std::call_once(half_made_, [&] {
        const Home none(nullptr);  // it stays
        half_.reset(n_out * stride);
        constexpr Index kRows = 16;  // a task
        parallel_for((n_out + kRows - 1) / kRows, threads.alone_if(n_out * stride < kMinWeightsForThreads),
                     [&](Index t) {
                       for (Index j = t * kRows; j < std::min(n_out, (t + 1) * kRows); ++j) {
                         kernels::bfloat16_table().join(dense_.weight.cols, dense_.weight.row(j),
                                                        reinterpret_cast<float*>(half_.data() + j * stride));
                       }
                     });
      });
      weights.half = {half_.data(), n_out, dense_.weight.cols, stride};
    }
  }
  return weights;
}

template <class T>
void DenseLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  checked_product({dense_.weight.rows, dense_.weight.cols}, "a weight");
  require_fit(inputs.size() == 1 &&
                  inputs[0] == checked_product({positions_, dense_.weight.cols}, "the positions of a dense layer") &&
                  output == checked_product({positions_, dense_.weight.rows}, "the positions of a dense layer"),
              "weights and the values beside them");
}

template <class T>
void DenseLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                            const Threads& threads) const {
  each_run(output.rows, is_contiguous(inputs[0]) && is_contiguous(output), [&](Index first, Index count) {
    dense_forward(weights_for(count * positions_, threads), by_position(inputs[0], first, count, positions_),
                  by_position(output, first, count, positions_), threads);
  });
}

template <class T>
void DenseLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const auto* forms = static_cast<const Forms<T>*>(job.prepared);
  const auto* form = forms == nullptr ? nullptr : &forms->of[job.output_positive ? 1 : 0];
  const bool by_magnitude =
      form != nullptr && !form->magnitudes.passes() && (!job.input_nonnegative || serves_nonnegative(form->magnitudes));
  const bool together = is_contiguous(job.inputs[0]) && is_contiguous(job.output) && is_contiguous(job.relevance) &&
                        is_contiguous(job.results[0]);
  for (Index t = 0; t < job.targets(); ++t) {
    each_run(job.batch, together, [&](Index first, Index count) {
      const Index row = t * job.batch + first;
      std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(positions_ == 1 ? 0 : count * positions_));
      if (job.coefficients) {
        dense_coefficients<T>(weights_for(count * positions_, threads),
                              by_position(job.relevance, row, count, positions_),
                              by_position(job.results[0], row, count, positions_),
                              positions_ == 1 ? job.absorbed + row : lost.data(), threads);
        add_absorbed(lost, positions_, job.absorbed + row);
        return;
      }
      dense_relevance<T>(
          {weights_for(count * positions_, threads), &job.rule->form(job.input_nonnegative, job.output_positive),
           job.bounds, form == nullptr ? nullptr : &form->constants,
           by_position(job.inputs[0], first, count, positions_), by_position(job.output, first, count, positions_),
           by_position(job.relevance, row, count, positions_), by_position(job.results[0], row, count, positions_),
           positions_ == 1 ? job.absorbed + row : lost.data(), by_magnitude ? &form->magnitudes : nullptr,
           by_magnitude ? &form->magnitude_constants : nullptr},
          threads);
      add_absorbed(lost, positions_, job.absorbed + row);
    });
  }
}

template <class T>
bool DenseLayer<T>::reads_output(const CompiledRule* rule, bool at_hand) const {
  LoweredRule gamma;  // behind a ReLU its other form serves, without the output
  return (!at_hand && magnitudes_of(dense_, rule->any(), &gamma) && serves_nonnegative(gamma)) ||
         (rule->any().sum_is_plain_output() && sum_takes_whole_bias(rule->any(), dense_.bias != nullptr));
}

template <class T>
bool DenseLayer<T>::reads_output_of_signed(const CompiledRule* rule, bool) const {
  LoweredRule made;
  return magnitudes_of(dense_, rule->any(), &made);
}

template <class T>
std::unique_ptr<Prepared> DenseLayer<T>::prepare(const CompiledRule& rule, const Bounds<T>& bounds,
                                                 const Threads& threads) const {
  auto forms = std::make_unique<Forms<T>>();
  for (const bool positive : {false, true}) {
    auto& form = forms->of[positive ? 1 : 0];
    form.constants = prepare_dense(dense_, rule.form(false, positive), bounds, threads);
    if (magnitudes_of(dense_, rule.form(false, positive), &form.magnitudes)) {
      form.magnitude_constants = prepare_biases(dense_.bias, dense_.weight.rows, form.magnitudes);
    }
  }
  return forms;
}

template class DenseLayer<float>;
template class DenseLayer<double>;

namespace {

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  const Matrix<const T> weight = fields.matrix("weight");
  const DenseWeights<T> dense{weight, fields.vector_or_null("bias", weight.rows)};
  return std::make_unique<DenseLayer<T>>(dense, fields.has("positions") ? fields.integer("positions") : 1);
}

}  // namespace

void register_dense(LayerKinds* kinds) { kinds->add("dense", make<float>, make<double>); }

}  // namespace pylrp
