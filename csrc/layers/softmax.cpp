#include "layers/softmax.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/buffer.hpp"

#include "layers/registry.hpp"

namespace pylrp {

template <class T>
void SoftmaxLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_pixels(inputs, output, channels_, "the channels of a softmax");
}

template <class T>
void SoftmaxLayer<T>::of_pixel(const T* x, T* out) const {
  const T most = *std::max_element(x, x + channels_);
  T total = 0;
  for (Index c = 0; c < channels_; ++c) {
    total += std::exp(x[c] - most);
  }
  for (Index c = 0; c < channels_; ++c) {
    out[c] = logarithm_ ? x[c] - most - std::log(total) : std::exp(x[c] - most) / total;
  }
}

template <class T>
void SoftmaxLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                              const Threads& threads) const {
  const Index pixels = output.cols / channels_;
  parallel_for(output.rows * pixels, threads, [&](Index task) {
    const Index at = task % pixels * channels_;
    of_pixel(inputs[0].row(task / pixels) + at, output.row(task / pixels) + at);
  });
}

// R_c = x_c (R_c - P_c sum R), or nothing; `softmax` takes what that leaves.
template <class T>
void SoftmaxLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const bool taylor = job.rule->rule().treatment == Treatment::kTaylor;
  const Index pixels = job.relevance.cols / channels_;
  std::vector<double> lost(static_cast<std::size_t>(job.relevance.rows * pixels));
  parallel_for(job.relevance.rows * pixels, threads, [&](Index task) {
    const Index row = task / pixels, at = task % pixels * channels_;
    const T* const r = job.relevance.row(row) + at;
    T* const out = job.results[0].row(row) + at;
    const double all = std::accumulate(r, r + channels_, 0.0);
    double handed_on = 0;
    std::fill_n(out, channels_, T(0));
    if (taylor) {
      const T* const x = job.inputs[0].row(row % job.batch) + at;
      const Buffer<T> share(channels_);
      of_pixel(x, share.data());
      for (Index c = 0; c < channels_; ++c) {
        out[c] = x[c] * static_cast<T>(static_cast<double>(r[c]) - static_cast<double>(share.data()[c]) * all);
        handed_on += static_cast<double>(out[c]);
      }
    }
    lost[static_cast<std::size_t>(task)] = all - handed_on;
  });
  for (std::size_t task = 0; task < lost.size(); ++task) {
    job.absorbed[static_cast<Index>(task) / pixels].softmax += lost[task];
  }
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
