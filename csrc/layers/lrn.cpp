#include "layers/lrn.hpp"

#include <algorithm>
#include <cmath>

#include "layers/registry.hpp"

namespace pylrp {

template <class T>
void LocalResponseNormLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_pixels(inputs, output, channels_, "the channels of a local response normalisation");
  require_fit(size_ > 0 && size_ <= kMostEntries, "channels around one");
}

template <class T>
void LocalResponseNormLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                                        const Threads& threads) const {
  const Index pixels = output.cols / channels_;
  parallel_for(output.rows * pixels, threads, [&](Index task) {
    const T* const x = inputs[0].row(task / pixels) + task % pixels * channels_;
    T* const out = output.row(task / pixels) + task % pixels * channels_;
    for (Index c = 0; c < channels_; ++c) {
      double total = 0;
      for (Index k = std::max<Index>(0, c - (size_ - 1) / 2); k <= std::min(channels_ - 1, c + size_ / 2); ++k) {
        total += static_cast<double>(x[k]) * static_cast<double>(x[k]);
      }
      out[c] = static_cast<T>(static_cast<double>(x[c]) /
                              std::pow(bias_ + alpha_ / static_cast<double>(size_) * total, beta_));
    }
  });
}

template class LocalResponseNormLayer<float>;
template class LocalResponseNormLayer<double>;

namespace {

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  return std::make_unique<LocalResponseNormLayer<T>>(fields.integer("channels"), fields.integer("size"),
                                                     fields.real("alpha"), fields.real("beta"), fields.real("bias"));
}

}  // namespace

void register_lrn(LayerKinds* kinds) { kinds->add("lrn", make<float>, make<double>); }

}  // namespace pylrp
