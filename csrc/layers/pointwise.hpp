// Layers that work on each entry or each pixel: activations, a factor and a shift for each entry, normalisation over
// channels, softmax.
#pragma once

#include <vector>

#include "layers/activation.hpp"
#include "layers/layer.hpp"

namespace pylrp {

template <class T>
class ActivationLayer : public Layer<T> {
 public:
  explicit ActivationLayer(const Activation& f) : f_(f) {}
  Flow flow() const override { return Flow::kSame; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool in_place() const override { return true; }
  bool is_clamp(Clamp<T>* clamp) const override;
  bool keeps_zero() const override { return f_.keeps_zero(); }
  bool makes_nonnegative() const override { return f_.nonnegative(); }
  bool keeps_nonnegative() const override { return f_.keeps_nonnegative(); }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>&, const Threads&) const override {}

 private:
  Activation f_;
};

// y = scale x + shift, (channels) each or one an entry. Relevance in proportion; the shift takes its share (a BatchNorm
// that could not be folded).
template <class T>
class AffineLayer : public Layer<T> {
 public:
  AffineLayer(std::vector<T> scale, std::vector<T> shift);
  Flow flow() const override { return only_scales_ ? Flow::kThrough : Flow::kOwn; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool reads_inputs(const CompiledRule*) const override { return !only_scales_; }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  std::vector<T> scale_, shift_;
  bool only_scales_;  // relevance passes unchanged
};

// y = x where x >= 0, else slope x; slopes (channels) or one.
template <class T>
class PReLULayer : public Layer<T> {
 public:
  explicit PReLULayer(std::vector<T> slope) : slope_(std::move(slope)) {}
  Flow flow() const override { return Flow::kSame; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool in_place() const override { return true; }
  bool keeps_nonnegative() const override { return true; }
  bool keeps_zero() const override { return true; }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>&, const Threads&) const override {}

 private:
  std::vector<T> slope_;
};

// y = x / (bias + alpha / size * sum of x^2 over `size` channels around)^beta. Relevance passes unchanged.
template <class T>
class LocalResponseNormLayer : public Layer<T> {
 public:
  LocalResponseNormLayer(Index channels, Index size, double alpha, double beta, double bias)
      : channels_(channels), size_(size), alpha_(alpha), beta_(beta), bias_(bias) {}
  Flow flow() const override { return Flow::kSame; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool keeps_nonnegative() const override { return true; }
  bool keeps_zero() const override { return true; }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>&, const Threads&) const override {}

 private:
  Index channels_, size_;
  double alpha_, beta_, bias_;
};

// y = x / norm of the channels of a pixel; x where that is zero. The norm counts as a constant: relevance passes
// unchanged.
template <class T>
class NormalizeLayer : public Layer<T> {
 public:
  // norm: 1 the sum of |x|, 2 the root of the sum of x^2, 0 the largest x
  NormalizeLayer(Index channels, int norm) : channels_(channels), norm_(norm) {}
  Flow flow() const override { return Flow::kSame; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool keeps_nonnegative() const override { return true; }
  bool keeps_zero() const override { return true; }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>&, const Threads&) const override {}

 private:
  Index channels_;
  int norm_;
};

// Over the channels of each pixel. Relevance passes unchanged: a probability that is explained starts at its logit.
template <class T>
class SoftmaxLayer : public Layer<T> {
 public:
  SoftmaxLayer(Index channels, bool logarithm) : channels_(channels), logarithm_(logarithm) {}
  Flow flow() const override { return Flow::kSame; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool makes_nonnegative() const override { return !logarithm_; }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>&, const Threads&) const override {}

 private:
  Index channels_;
  bool logarithm_;
};

}  // namespace pylrp
