#include "layers/activation.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>

#include "base/pieces.hpp"
#include "kernels/dispatch.hpp"
#include "layers/registry.hpp"

namespace pylrp {
namespace {

// Of pieces of all entries: count, x, y. No template, which would compile the loops over pieces once a function.
template <class T>
using PieceBody = std::function<void(Index, const T*, T*)>;

template <class T>
void each_part(Matrix<const T> input, Matrix<T> output, const Threads& threads, const PieceBody<T>& body) {
  if (input.cols >= kPiece) {
    each_piece(input.rows, input.cols, threads, [&](Index, Index row, Index first, Index count) {
      body(count, input.row(row) + first, output.row(row) + first);
    });
    return;
  }
  const Index rows_a_task = std::max<Index>(1, 2 * kPiece / std::max<Index>(input.cols, 1));
  const Index tasks = (input.rows + rows_a_task - 1) / rows_a_task;
  parallel_for(tasks, threads, [&](Index task) {
    for (Index i = task * rows_a_task; i < std::min(input.rows, (task + 1) * rows_a_task); ++i) {
      body(input.cols, input.row(i), output.row(i));
    }
  });
}

// y = after(x, f(before(x))), where f is a kernel.
template <class T, class Before, class After>
void through_kernel(kernels::Function f, Index count, const T* x, T* y, Before before, After after) {
  constexpr Index kBlock = 512;
  T values[kBlock];
  for (Index first = 0; first < count; first += kBlock) {
    const Index n = std::min(kBlock, count - first);
    std::transform(x + first, x + first + n, values, before);
    kernels::table<T>().function(f, n, values, values);
    std::transform(x + first, x + first + n, values, y + first, after);
  }
}

template <class T>
T softplus(T x) {
  return std::max(x, T(0)) + std::log1p(std::exp(-std::abs(x)));
}

}  // namespace

template <class T>
void activate(const Activation& f, Matrix<const T> input, Matrix<T> output, const Threads& threads) {
  const T a = static_cast<T>(f.a), b = static_cast<T>(f.b);
  const auto with = [&](auto function) {
    each_part<T>(input, output, threads,
                 [&](Index count, const T* x, T* y) { std::transform(x, x + count, y, function); });
  };
  const auto by = [&](kernels::Function kernel, auto before, auto after) {
    each_part<T>(input, output, threads,
                 [&](Index count, const T* x, T* y) { through_kernel(kernel, count, x, y, before, after); });
  };
  const auto plainly = [&](kernels::Function kernel) {
    each_part<T>(input, output, threads,
                 [&](Index count, const T* x, T* y) { kernels::table<T>().function(kernel, count, x, y); });
  };
  switch (f.kind) {
    case ActivationKind::kIdentity:
      return with([](T x) { return x; });
    case ActivationKind::kReLU:
      return with([](T x) { return x < 0 ? T(0) : x; });  // NaN stays NaN
    case ActivationKind::kLeakyReLU:
      return with([a](T x) { return x < 0 ? a * x : x; });
    case ActivationKind::kELU:
      return with([a](T x) { return x < 0 ? a * std::expm1(x) : x; });
    case ActivationKind::kGELU:
      return by(
          kernels::Function::kErf, [](T x) { return x * T(0.70710678118654752440); },
          [](T x, T value) { return x * (1 + value) / 2; });
    case ActivationKind::kGELUTanh:
      return by(
          kernels::Function::kTanh, [](T x) { return T(0.79788456080286535588) * (x + T(0.044715) * x * x * x); },
          [](T x, T value) { return x * (1 + value) / 2; });
    case ActivationKind::kSiLU:
      return by(kernels::Function::kSigmoid, [](T x) { return x; }, [](T x, T value) { return x * value; });
    case ActivationKind::kHardSwish:
      return with([](T x) { return x * std::clamp(x / 6 + T(0.5), T(0), T(1)); });
    case ActivationKind::kTanh:
      return plainly(kernels::Function::kTanh);
    case ActivationKind::kSigmoid:
      return plainly(kernels::Function::kSigmoid);
    case ActivationKind::kSoftplus:
      return with(softplus<T>);
    case ActivationKind::kClip:
      return with([a, b](T x) { return x < a ? a : (x > b ? b : x); });
    case ActivationKind::kHardSigmoid:
      return with([a, b](T x) { return std::clamp(a * x + b, T(0), T(1)); });
    case ActivationKind::kMish:
      return with([](T x) { return x * std::tanh(softplus(x)); });
    case ActivationKind::kExp:
      return plainly(kernels::Function::kExp);
    case ActivationKind::kLog:
      return with([](T x) { return std::log(x); });
    case ActivationKind::kAffine:
      return with([a, b](T x) { return a * x + b; });
    case ActivationKind::kThresholdedReLU:
      return with([a](T x) { return x <= a ? T(0) : x; });
    case ActivationKind::kScaledTanh:
      return by(kernels::Function::kTanh, [b](T x) { return b * x; }, [a](T, T value) { return a * value; });
    case ActivationKind::kSoftsign:
      return with([](T x) { return x / (1 + std::abs(x)); });
  }
}

namespace {

// f'(x); at a kink what torch gives.
template <class T>
T slope_at(const Activation& f, T x) {
  const T a = static_cast<T>(f.a), b = static_cast<T>(f.b);
  switch (f.kind) {
    case ActivationKind::kIdentity:
      return T(1);
    case ActivationKind::kReLU:
      return x > 0 ? T(1) : T(0);
    case ActivationKind::kLeakyReLU:
      return x > 0 ? T(1) : a;
    case ActivationKind::kELU:
      return x > 0 ? T(1) : a * std::exp(x);
    case ActivationKind::kGELU:
      return (1 + std::erf(x * T(0.70710678118654752440))) / 2 + x * T(0.39894228040143267794) * std::exp(-x * x / 2);
    case ActivationKind::kGELUTanh: {
      const T k = T(0.79788456080286535588), t = std::tanh(k * (x + T(0.044715) * x * x * x));
      return (1 + t) / 2 + x / 2 * (1 - t * t) * k * (1 + T(3 * 0.044715) * x * x);
    }
    case ActivationKind::kSiLU: {
      const T s = 1 / (1 + std::exp(-x));
      return s * (1 + x * (1 - s));
    }
    case ActivationKind::kHardSwish:
      return x <= -3 ? T(0) : (x < 3 ? x / 3 + T(0.5) : T(1));
    case ActivationKind::kTanh: {
      const T t = std::tanh(x);
      return 1 - t * t;
    }
    case ActivationKind::kSigmoid: {
      const T s = 1 / (1 + std::exp(-x));
      return s * (1 - s);
    }
    case ActivationKind::kSoftplus:
      return 1 / (1 + std::exp(-x));
    case ActivationKind::kClip:
      return x >= a && x <= b ? T(1) : T(0);
    case ActivationKind::kHardSigmoid:
      return a * x + b > 0 && a * x + b < 1 ? a : T(0);
    case ActivationKind::kMish: {
      const T t = std::tanh(softplus(x)), s = 1 / (1 + std::exp(-x));
      return t + x * (1 - t * t) * s;
    }
    case ActivationKind::kExp:
      return std::exp(x);
    case ActivationKind::kLog:
      return 1 / x;
    case ActivationKind::kAffine:
      return a;
    case ActivationKind::kThresholdedReLU:
      return x > a ? T(1) : T(0);
    case ActivationKind::kScaledTanh: {
      const T t = std::tanh(b * x);
      return a * b * (1 - t * t);
    }
    case ActivationKind::kSoftsign:
      return 1 / ((1 + std::abs(x)) * (1 + std::abs(x)));
  }
  return T(0);
}

}  // namespace

template void activate<float>(const Activation&, Matrix<const float>, Matrix<float>, const Threads&);
template void activate<double>(const Activation&, Matrix<const double>, Matrix<double>, const Threads&);

template <class T>
void ActivationLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_pixels(inputs, output, 1, "an activation's input and output");
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
void ActivationLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const Threads alone{1, nullptr, threads.workspace};
  const auto fill = [&](const T* x, Index, Index count, T* y) {
    activate<T>(f_, {x, 1, count, count}, {y, 1, count, count}, alone);
  };
  if (is_gradient(job.rule)) {
    return relevance_by_gradient(job, threads, [&](const T* x, Index first, Index count, T* y, T* slope) {
      fill(x, first, count, y);
      std::transform(x, x + count, slope, [this](T each) { return slope_at(f_, each); });
    });
  }
  if (job.coefficients) {
    const T near[2] = {kNearZero<T>, -kNearZero<T>};
    T values[2];
    fill(near, 0, 2, values);
    const T slope = slope_at_zero(values[0], values[1]);
    coefficients_of_function(job, [slope](Index) { return slope; }, threads);
    return;
  }
  T at_zero = 0;
  if (!f_.keeps_zero()) {
    const T zero = 0;
    fill(&zero, 0, 1, &at_zero);
  }
  relevance_by_contributions(job, [at_zero](Index) { return at_zero; }, threads, fill);
}

template class ActivationLayer<float>;
template class ActivationLayer<double>;

namespace {

struct Named {
  const char* name;
  ActivationKind kind;
};
constexpr Named kNames[] = {
    {"identity", ActivationKind::kIdentity},
    {"relu", ActivationKind::kReLU},
    {"leaky_relu", ActivationKind::kLeakyReLU},
    {"elu", ActivationKind::kELU},
    {"gelu", ActivationKind::kGELU},
    {"gelu_tanh", ActivationKind::kGELUTanh},
    {"silu", ActivationKind::kSiLU},
    {"hard_swish", ActivationKind::kHardSwish},
    {"tanh", ActivationKind::kTanh},
    {"sigmoid", ActivationKind::kSigmoid},
    {"softplus", ActivationKind::kSoftplus},
    {"clip", ActivationKind::kClip},
    {"hard_sigmoid", ActivationKind::kHardSigmoid},
    {"mish", ActivationKind::kMish},
    {"exp", ActivationKind::kExp},
    {"log", ActivationKind::kLog},
    {"affine_function", ActivationKind::kAffine},
    {"thresholded_relu", ActivationKind::kThresholdedReLU},
    {"scaled_tanh", ActivationKind::kScaledTanh},
    {"softsign", ActivationKind::kSoftsign},
};

template <class T>
std::unique_ptr<Layer<T>> make(const std::string& kind, const Fields<T>& fields) {
  return std::make_unique<ActivationLayer<T>>(activation_named(kind, fields.real("a"), fields.real("b")));
}

}  // namespace

Activation activation_named(const std::string& name, double a, double b) {
  const auto* const named =
      std::find_if(std::begin(kNames), std::end(kNames), [&](const Named& n) { return name == n.name; });
  require_fit(named != std::end(kNames), "an activation and its name");
  return {named->kind, a, b};
}

void register_activation(LayerKinds* kinds) {
  for (const Named& named : kNames) {
    kinds->add(named.name, make<float>, make<double>);
  }
}

}  // namespace pylrp
