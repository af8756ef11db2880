#include "layers/pointwise.hpp"

#include <cmath>

#include "base/pieces.hpp"
#include "layers/dense/dense.hpp"
#include "rules/stabilizer.hpp"

namespace pylrp {
namespace {

// One input of the same size, which is a whole number of pixels.
void require_pixels(const std::vector<Index>& inputs, Index output, Index channels, const char* what) {
  require_fit(inputs.size() == 1 && inputs[0] == output && channels > 0 && output % channels == 0, what);
}

}  // namespace

template <class T>
void ActivationLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_pixels(inputs, output, 1, "an activation's input and output");
}
template <class T>
void AffineLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_pixels(inputs, output, static_cast<Index>(scale_.size()), "a scale and its input");
  require_fit(scale_.size() == shift_.size(), "a scale and its shift");
}
template <class T>
void PReLULayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_pixels(inputs, output, static_cast<Index>(slope_.size()), "slopes and their input");
}
template <class T>
void LocalResponseNormLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_pixels(inputs, output, channels_, "the channels of a local response normalisation");
  require_fit(size_ > 0 && size_ <= kMostEntries, "channels around one");
}
template <class T>
void NormalizeLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_pixels(inputs, output, channels_, "the channels of a norm");
}
template <class T>
void SoftmaxLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_pixels(inputs, output, channels_, "the channels of a softmax");
}

template <class T>
bool ActivationLayer<T>::is_clamp(Clamp<T>* clamp) const {
  if (f_.kind == ActivationKind::kReLU) {
    *clamp = {T(0), std::numeric_limits<T>::infinity()};
  } else if (f_.kind == ActivationKind::kClip) {
    *clamp = {static_cast<T>(f_.a), static_cast<T>(f_.b)};
  } else {
    return false;
  }
  return true;
}

template <class T>
void ActivationLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                                 const Threads& threads) const {
  activate(f_, inputs[0], output, threads);
}

template <class T>
AffineLayer<T>::AffineLayer(std::vector<T> scale, std::vector<T> shift)
    : scale_(std::move(scale)),
      shift_(std::move(shift)),
      only_scales_(std::all_of(shift_.begin(), shift_.end(), [](T t) { return t == 0; })) {}

template <class T>
void AffineLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                             const Threads& threads) const {
  each_piece(output.rows, output.cols, threads, [&](Index, Index row, Index first, Index count) {
    const T* const x = inputs[0].row(row);
    T* const out = output.row(row);
    std::size_t c = static_cast<std::size_t>(first) % scale_.size();
    for (Index j = first; j < first + count; ++j) {
      out[j] = scale_[c] * x[j] + shift_[c];
      c = c + 1 == scale_.size() ? 0 : c + 1;
    }
  });
}

template <class T>
void AffineLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const Stabilizer<T> stabilizer(job.rule);
  const Index pieces = pieces_of(job.relevance.cols);
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(job.relevance.rows * pieces));
  each_piece(job.relevance.rows, job.relevance.cols, threads, [&](Index task, Index row, Index first, Index count) {
    const T* const r = job.relevance.row(row);
    T* const out = job.results[0].row(row);
    if (only_scales_) {
      std::copy_n(r + first, count, out + first);
      return;
    }
    kernels::Absorbed& page = lost[static_cast<std::size_t>(task)];
    const T* const x = job.inputs[0].row(row % job.batch);
    std::size_t c = static_cast<std::size_t>(first) % scale_.size();
    for (Index j = first; j < first + count; ++j) {
      const T part = scale_[c] * x[j], q = stabilizer.share(r[j], part + shift_[c], &page);
      out[j] = part * q;
      page.batchnorm += static_cast<double>(shift_[c] * q);
      c = c + 1 == scale_.size() ? 0 : c + 1;
    }
  });
  for (std::size_t task = 0; task < lost.size(); ++task) {
    add_absorbed(lost[task], &job.absorbed[static_cast<Index>(task) / pieces]);
  }
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

template class ActivationLayer<float>;
template class ActivationLayer<double>;
template class AffineLayer<float>;
template class AffineLayer<double>;
template class PReLULayer<float>;
template class PReLULayer<double>;
template class LocalResponseNormLayer<float>;
template class LocalResponseNormLayer<double>;
template class NormalizeLayer<float>;
template class NormalizeLayer<double>;
template class SoftmaxLayer<float>;
template class SoftmaxLayer<double>;

}  // namespace pylrp
