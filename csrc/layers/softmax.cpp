#include "layers/softmax.hpp"

#include <algorithm>
#include <cmath>

#include "layers/registry.hpp"

namespace pylrp {

template <class T>
void SoftmaxLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_pixels(inputs, output, channels_, "the channels of a softmax");
}

template <class T>
void SoftmaxLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                              const Threads& threads) const {
  const Index pixels = output.cols / channels_;
  parallel_for(output.rows * pixels, threads, [&](Index task) {
    const T* const x = inputs[0].row(task / pixels) + task % pixels * channels_;
    T* const out = output.row(task / pixels) + task % pixels * channels_;
    const T most = *std::max_element(x, x + channels_);
    T total = 0;
    for (Index c = 0; c < channels_; ++c) {
      total += std::exp(x[c] - most);
    }
    for (Index c = 0; c < channels_; ++c) {
      out[c] = logarithm_ ? x[c] - most - std::log(total) : std::exp(x[c] - most) / total;
    }
  });
}

template class SoftmaxLayer<float>;
template class SoftmaxLayer<double>;

namespace {

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  return std::make_unique<SoftmaxLayer<T>>(fields.integer("channels"), fields.flag("logarithm"));
}

}  // namespace

void register_softmax(LayerKinds* kinds) { kinds->add("softmax", make<float>, make<double>); }

}  // namespace pylrp
