// Activation functions, element by element. Relevance passes through them unchanged.
#pragma once

#include <cstdint>

#include "base/parallel.hpp"
#include "base/view.hpp"

namespace pylrp {

enum class ActivationKind : std::uint8_t {
  kIdentity,
  kReLU,
  kLeakyReLU,  // parameter: slope below zero
  kELU,        // parameter: alpha
  kGELU,       // exact, with erf
  kGELUTanh,   // the tanh approximation
  kSiLU,
  kHardSwish,
  kTanh,
  kSigmoid,
  kSoftplus,
};

struct Activation {
  ActivationKind kind = ActivationKind::kIdentity;
  double parameter = 0;

  bool nonnegative() const {
    return kind == ActivationKind::kReLU || kind == ActivationKind::kSigmoid || kind == ActivationKind::kSoftplus;
  }
};

// output = f(input), both (rows, cols); they may be the same.
template <class T>
void activate(const Activation& f, Matrix<const T> input, Matrix<T> output, const Threads& threads);

}  // namespace pylrp
