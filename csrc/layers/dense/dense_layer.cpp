#include "layers/dense/dense_layer.hpp"

#include "layers/registry.hpp"

namespace pylrp {
namespace {

// Constant terms do not depend on the sign of the input; which groups there are depends on that of the output.
template <class T>
struct Forms : Prepared {
  GroupConstants<T> any, positive;
};

}  // namespace

template <class T>
void DenseLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_fit(inputs.size() == 1 && inputs[0] == dense_.weight.cols && output == dense_.weight.rows,
              "weights and the values beside them");
  checked_product({dense_.weight.rows, dense_.weight.cols}, "a weight");
}

template <class T>
void DenseLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                            const Threads& threads) const {
  dense_forward(dense_, inputs[0], output, threads);
}

template <class T>
void DenseLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const auto* forms = static_cast<const Forms<T>*>(job.prepared);
  const GroupConstants<T>* constants =
      forms == nullptr ? nullptr : (job.output_positive ? &forms->positive : &forms->any);
  for (Index t = 0; t < job.targets(); ++t) {
    dense_relevance<T>({dense_, &job.rule->form(job.input_nonnegative, job.output_positive), job.bounds, constants,
                        job.inputs[0], job.output, job.relevance.slice(t * job.batch, job.batch),
                        job.results[0].slice(t * job.batch, job.batch), job.absorbed + t * job.batch},
                       threads);
  }
}

template <class T>
bool DenseLayer<T>::reads_output(const CompiledRule* rule, bool) const {
  return rule->any().sum_is_plain_output() && sum_takes_whole_bias(rule->any(), dense_.bias != nullptr);
}

template <class T>
std::unique_ptr<Prepared> DenseLayer<T>::prepare(const CompiledRule& rule, const Bounds<T>& bounds,
                                                 const Threads& threads) const {
  auto forms = std::make_unique<Forms<T>>();
  forms->any = prepare_dense(dense_, rule.form(false, false), bounds, threads);
  forms->positive = prepare_dense(dense_, rule.form(false, true), bounds, threads);
  return forms;
}

template class DenseLayer<float>;
template class DenseLayer<double>;

namespace {

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  const Matrix<const T> weight = fields.matrix("weight");
  return std::make_unique<DenseLayer<T>>(DenseWeights<T>{weight, fields.vector_or_null("bias", weight.rows)});
}

}  // namespace

void register_dense(LayerKinds* kinds) { kinds->add("dense", make<float>, make<double>); }

}  // namespace pylrp
