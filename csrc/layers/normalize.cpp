#include "layers/normalize.hpp"

#include <algorithm>
#include <cmath>

#include "layers/registry.hpp"

namespace pylrp {

template <class T>
void NormalizeLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_pixels(inputs, output, channels_, "the channels of a norm");
}

template <class T>
void NormalizeLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                                const Threads& threads) const {
  const Index pixels = output.cols / channels_;
  parallel_for(output.rows * pixels, threads, [&](Index task) {
    const T* const x = inputs[0].row(task / pixels) + task % pixels * channels_;
    T* const out = output.row(task / pixels) + task % pixels * channels_;
    double size = norm_ == 0 ? static_cast<double>(*std::max_element(x, x + channels_)) : 0;
    for (Index c = 0; c < channels_ && norm_ != 0; ++c) {
      const double value = static_cast<double>(x[c]);
      size += norm_ == 1 ? std::abs(value) : value * value;
    }
    size = norm_ == 2 ? std::sqrt(size) : size;
    for (Index c = 0; c < channels_; ++c) {
      out[c] = size == 0 ? x[c] : static_cast<T>(static_cast<double>(x[c]) / size);
    }
  });
}

template class NormalizeLayer<float>;
template class NormalizeLayer<double>;

namespace {

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  return std::make_unique<NormalizeLayer<T>>(fields.integer("channels"), static_cast<int>(fields.integer("norm")));
}

}  // namespace

void register_normalize(LayerKinds* kinds) { kinds->add("normalize", make<float>, make<double>); }

}  // namespace pylrp
