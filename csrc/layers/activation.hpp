// Activation functions, element by element. Relevance passes through them unchanged, or by their contributions.
#pragma once

#include <cstdint>
#include <string>

#include "layers/function_relevance.hpp"
#include "layers/layer.hpp"

namespace pylrp {

enum class ActivationKind : std::uint8_t {
  kIdentity,
  kReLU,
  kLeakyReLU,  // a: slope below zero
  kELU,        // a: alpha
  kGELU,       // exact, with erf
  kGELUTanh,   // the tanh approximation
  kSiLU,
  kHardSwish,
  kTanh,
  kSigmoid,
  kSoftplus,
  kClip,         // a: low, b: high
  kHardSigmoid,  // a: alpha, b: beta
  kMish,
  kExp,
  kLog,
  kAffine,           // a: factor, b: shift
  kThresholdedReLU,  // a: where x begins to pass
  kScaledTanh,       // a: factor, b: of the argument
  kSoftsign,
};

struct Activation {
  ActivationKind kind = ActivationKind::kIdentity;
  double a = 0, b = 0;

  bool nonnegative() const {
    return kind == ActivationKind::kReLU || kind == ActivationKind::kSigmoid || kind == ActivationKind::kSoftplus ||
           kind == ActivationKind::kHardSigmoid || kind == ActivationKind::kExp ||
           (kind == ActivationKind::kClip && a >= 0);
  }
  bool keeps_zero() const {
    return !(kind == ActivationKind::kSigmoid || kind == ActivationKind::kSoftplus ||
             kind == ActivationKind::kHardSigmoid || kind == ActivationKind::kExp || kind == ActivationKind::kLog ||
             (kind == ActivationKind::kClip && (a > 0 || b < 0)) || (kind == ActivationKind::kAffine && b != 0) ||
             (kind == ActivationKind::kThresholdedReLU && a < 0));
  }
  // f(x) >= 0 for x >= 0
  bool keeps_nonnegative() const {
    return kind != ActivationKind::kLog && (kind != ActivationKind::kClip || b >= 0) &&
           kind != ActivationKind::kAffine && kind != ActivationKind::kScaledTanh;
  }
};

// By its name in Python. Throws Error where there is none.
Activation activation_named(const std::string& name, double a, double b);

// output = f(input), both (rows, cols); they may be the same.
template <class T>
void activate(const Activation& f, Matrix<const T> input, Matrix<T> output, const Threads& threads);

template <class T>
class ActivationLayer : public Layer<T> {
 public:
  explicit ActivationLayer(const Activation& f) : f_(f) {}
  Flow flow() const override { return Flow::kIdentity; }
  Flow flow_under(const CompiledRule* rule) const override { return flow_of_function(rule); }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool is_view() const override { return f_.kind == ActivationKind::kIdentity; }
  bool in_place() const override { return true; }
  bool is_clamp(Clamp<T>* clamp) const override;
  bool keeps_zero() const override { return f_.keeps_zero(); }
  Coefficients coefficients(const CompiledRule* rule) const override {
    return coefficients_of_function(rule, f_.keeps_zero());
  }
  bool same_coefficients() const override { return is_view(); }
  bool makes_nonnegative() const override { return f_.nonnegative(); }
  bool keeps_nonnegative() const override { return f_.keeps_nonnegative(); }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  Activation f_;
};

}  // namespace pylrp
