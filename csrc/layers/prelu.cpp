#include "layers/prelu.hpp"

#include "base/pieces.hpp"
#include "layers/registry.hpp"

namespace pylrp {

template <class T>
void PReLULayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_pixels(inputs, output, static_cast<Index>(slope_.size()), "slopes and their input");
}

template <class T>
void PReLULayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                            const Threads& threads) const {
  each_piece(output.rows, output.cols, threads, [&](Index, Index row, Index first, Index count) {
    const T* const x = inputs[0].row(row);
    T* const out = output.row(row);
    for (Index j = first; j < first + count; ++j) {
      out[j] = x[j] < 0 ? slope_[static_cast<std::size_t>(j) % slope_.size()] * x[j] : x[j];
    }
  });
}

template <class T>
void PReLULayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  relevance_by_contributions(
      job, [](Index) { return T(0); }, threads,
      [&](const T* x, Index first, Index count, T* y) {
        for (Index j = 0; j < count; ++j) {
          y[j] = x[j] < 0 ? slope_[static_cast<std::size_t>(first + j) % slope_.size()] * x[j] : x[j];
        }
      });
}

template class PReLULayer<float>;
template class PReLULayer<double>;

namespace {

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  return std::make_unique<PReLULayer<T>>(fields.vector("slope"));
}

}  // namespace

void register_prelu(LayerKinds* kinds) { kinds->add("prelu", make<float>, make<double>); }

}  // namespace pylrp
