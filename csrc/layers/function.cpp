// Any function of one value: a short program of elementary steps, evaluated exactly at every call, in blocks.
//
// A step takes the input, results of steps before it and constants; a constant is one number, one a channel, or one an
// entry. Relevance passes unchanged or goes by contributions, as that of activations; f(0) is the program's value at 0.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "base/buffer.hpp"
#include "base/pieces.hpp"
#include "base/size.hpp"
#include "kernels/dispatch.hpp"
#include "layers/function_relevance.hpp"
#include "layers/registry.hpp"

namespace pylrp {
namespace {

// In the order of OPERATIONS in pylrp/layers/function.py.
enum class Op : std::uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kPow,
  kMin,
  kMax,
  kLess,
  kLessEqual,
  kEqual,
  kAnd,
  kOr,
  kWhere,
  kNegative,
  kNot,
  kAbs,
  kSign,
  kSqrt,
  kExp,
  kExpm1,
  kLog,
  kLog1p,
  kSin,
  kCos,
  kTan,
  kSinh,
  kCosh,
  kTanh,
  kArcSin,
  kArcCos,
  kArcTan,
  kArcSinh,
  kArcCosh,
  kArcTanh,
  kErf,
  kSigmoid,
  kSoftplus,
  kFloor,
  kCeil,
  kRound,
  kCount
};
constexpr Index kBlock = 512;       // entries that a program runs on at a time
constexpr Index kMostSteps = 1024;  // of a program

constexpr Index operands(Op op) { return op == Op::kWhere ? 3 : (op < Op::kWhere ? 2 : 1); }

// NaN where an operand is.
template <class T>
T smaller(T a, T b) {
  return a < b || a != a ? a : b;
}
template <class T>
T larger(T a, T b) {
  return a > b || a != a ? a : b;
}

template <class T>
void run(Op op, const T* const* from, Index count, T* to) {
  const T *const a = from[0], *const b = from[1];
  const auto one = [&](auto f) { std::transform(a, a + count, to, f); };
  const auto two = [&](auto f) { std::transform(a, a + count, b, to, f); };
  switch (op) {
    case Op::kAdd:
      return two([](T u, T v) { return u + v; });
    case Op::kSubtract:
      return two([](T u, T v) { return u - v; });
    case Op::kMultiply:
      return two([](T u, T v) { return u * v; });
    case Op::kDivide:
      return two([](T u, T v) { return u / v; });
    case Op::kPow:
      return two([](T u, T v) { return std::pow(u, v); });
    case Op::kMin:
      return two([](T u, T v) { return smaller(u, v); });
    case Op::kMax:
      return two([](T u, T v) { return larger(u, v); });
    case Op::kLess:
      return two([](T u, T v) { return u < v ? T(1) : T(0); });
    case Op::kLessEqual:
      return two([](T u, T v) { return u <= v ? T(1) : T(0); });
    case Op::kEqual:
      return two([](T u, T v) { return u == v ? T(1) : T(0); });
    case Op::kAnd:
      return two([](T u, T v) { return u != 0 && v != 0 ? T(1) : T(0); });
    case Op::kOr:
      return two([](T u, T v) { return u != 0 || v != 0 ? T(1) : T(0); });
    case Op::kWhere:
      for (Index j = 0; j < count; ++j) {
        to[j] = a[j] != 0 ? b[j] : from[2][j];
      }
      return;
    case Op::kNegative:
      return one([](T u) { return -u; });
    case Op::kNot:
      return one([](T u) { return u == 0 ? T(1) : T(0); });
    case Op::kAbs:
      return one([](T u) { return std::abs(u); });
    case Op::kSign:
      return one([](T u) { return u > 0 ? T(1) : (u < 0 ? T(-1) : u); });
    case Op::kSqrt:
      return one([](T u) { return std::sqrt(u); });
    case Op::kExp:
      return kernels::table<T>().function(kernels::Function::kExp, count, a, to);
    case Op::kExpm1:
      return one([](T u) { return std::expm1(u); });
    case Op::kLog:
      return one([](T u) { return std::log(u); });
    case Op::kLog1p:
      return one([](T u) { return std::log1p(u); });
    case Op::kSin:
      return one([](T u) { return std::sin(u); });
    case Op::kCos:
      return one([](T u) { return std::cos(u); });
    case Op::kTan:
      return one([](T u) { return std::tan(u); });
    case Op::kSinh:
      return one([](T u) { return std::sinh(u); });
    case Op::kCosh:
      return one([](T u) { return std::cosh(u); });
    case Op::kTanh:
      return kernels::table<T>().function(kernels::Function::kTanh, count, a, to);
    case Op::kArcSin:
      return one([](T u) { return std::asin(u); });
    case Op::kArcCos:
      return one([](T u) { return std::acos(u); });
    case Op::kArcTan:
      return one([](T u) { return std::atan(u); });
    case Op::kArcSinh:
      return one([](T u) { return std::asinh(u); });
    case Op::kArcCosh:
      return one([](T u) { return std::acosh(u); });
    case Op::kArcTanh:
      return one([](T u) { return std::atanh(u); });
    case Op::kErf:
      return kernels::table<T>().function(kernels::Function::kErf, count, a, to);
    case Op::kSigmoid:
      return kernels::table<T>().function(kernels::Function::kSigmoid, count, a, to);
    case Op::kSoftplus:
      return one([](T u) { return larger(u, T(0)) + std::log1p(std::exp(-std::abs(u))); });
    case Op::kFloor:
      return one([](T u) { return std::floor(u); });
    case Op::kCeil:
      return one([](T u) { return std::ceil(u); });
    case Op::kRound:
      return one([](T u) { return std::nearbyint(u); });
    case Op::kCount:
      return;
  }
}

// The derivative of a step: of its operands' values `from`, their derivatives `d` and its result y.
template <class T>
T slope_of(Op op, const T* from, const T* d, T y) {
  const T a = from[0], b = from[1];
  switch (op) {
    case Op::kAdd:
      return d[0] + d[1];
    case Op::kSubtract:
      return d[0] - d[1];
    case Op::kMultiply:
      return d[0] * b + a * d[1];
    case Op::kDivide:
      return (d[0] - y * d[1]) / b;
    case Op::kPow:
      return (d[0] == 0 ? T(0) : d[0] * b * std::pow(a, b - 1)) + (d[1] == 0 ? T(0) : d[1] * y * std::log(a));
    case Op::kMin:
      return a < b || a != a ? d[0] : d[1];
    case Op::kMax:
      return a > b || a != a ? d[0] : d[1];
    case Op::kWhere:
      return a != 0 ? d[1] : d[2];
    case Op::kNegative:
      return -d[0];
    case Op::kAbs:
      return a > 0 ? d[0] : (a < 0 ? -d[0] : T(0));
    case Op::kSqrt:
      return d[0] == 0 ? T(0) : d[0] / (2 * y);
    case Op::kExp:
      return d[0] * y;
    case Op::kExpm1:
      return d[0] * (y + 1);
    case Op::kLog:
      return d[0] / a;
    case Op::kLog1p:
      return d[0] / (1 + a);
    case Op::kSin:
      return d[0] * std::cos(a);
    case Op::kCos:
      return -d[0] * std::sin(a);
    case Op::kTan:
      return d[0] * (1 + y * y);
    case Op::kSinh:
      return d[0] * std::cosh(a);
    case Op::kCosh:
      return d[0] * std::sinh(a);
    case Op::kTanh:
      return d[0] * (1 - y * y);
    case Op::kArcSin:
      return d[0] / std::sqrt(1 - a * a);
    case Op::kArcCos:
      return -d[0] / std::sqrt(1 - a * a);
    case Op::kArcTan:
      return d[0] / (1 + a * a);
    case Op::kArcSinh:
      return d[0] / std::sqrt(a * a + 1);
    case Op::kArcCosh:
      return d[0] / std::sqrt(a * a - 1);
    case Op::kArcTanh:
      return d[0] / (1 - a * a);
    case Op::kErf:
      return d[0] * T(1.1283791670955125739) * std::exp(-a * a);
    case Op::kSigmoid:
      return d[0] * y * (1 - y);
    case Op::kSoftplus:
      return d[0] / (1 + std::exp(-a));
    default:  // comparisons, signs, rounding
      return T(0);
  }
}

// An operand is 0, the input; k > 0, the result of step k; or k < 0, constant -1 - k.
struct Step {
  Op op;
  Index from[3];
};

template <class T>
class FunctionLayer : public Layer<T> {
 public:
  // constants: (number, width), each row repeated along the entries of a sample.
  FunctionLayer(const std::vector<Index>& code, Matrix<const T> constants);
  Flow flow() const override { return Flow::kIdentity; }
  Flow flow_under(const CompiledRule* rule) const override { return flow_of_function(rule); }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override {
    require_pixels(inputs, output, width_, "a function's constants and its input");
  }
  bool in_place() const override { return true; }
  Coefficients coefficients(const CompiledRule* rule) const override {
    return coefficients_of_function(rule, keeps_zero());
  }
  bool keeps_zero() const override {
    return std::all_of(at_zero_.begin(), at_zero_.end(), [](T v) { return v == 0; });
  }

  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
               const Threads& threads) const override {
    each_piece(output.rows, output.cols, threads, [&](Index, Index row, Index first, Index count) {
      fill(inputs[0].row(row) + first, first, count, output.row(row) + first);
    });
  }
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override {
    if (is_gradient(job.rule)) {
      return relevance_by_gradient(job, threads, [&](const T* x, Index first, Index count, T* y, T* slope) {
        fill_slopes(x, first, count, y, slope);
      });
    }
    if (job.coefficients) {
      const std::vector<T> above = at(kNearZero<T>), below = at(-kNearZero<T>);
      const auto slope = [&](Index column) {
        const std::size_t c = static_cast<std::size_t>(column % width_);
        return slope_at_zero(above[c], below[c]);
      };
      coefficients_of_function(job, slope, threads);
      return;
    }
    const auto evaluate = [&](const T* x, Index first, Index count, T* y) { fill(x, first, count, y); };
    relevance_by_contributions(
        job, [&](Index column) { return at_zero_[static_cast<std::size_t>(column % width_)]; }, threads, evaluate);
  }

 private:
  void fill_slopes(const T* x, Index first, Index count, T* y, T* slope) const;
  // f(x) for each of the constants' entries.
  std::vector<T> at(T x) const {
    const std::vector<T> same(static_cast<std::size_t>(width_), x);
    std::vector<T> made(same.size());
    fill(same.data(), 0, width_, made.data());
    return made;
  }
  // first: the column of x[0] in a sample.
  void fill(const T* x, Index first, Index count, T* y) const;

  std::vector<Step> steps_;
  std::vector<T> constants_;
  Index width_;  // of a constant
  std::vector<T> at_zero_;
};

template <class T>
FunctionLayer<T>::FunctionLayer(const std::vector<Index>& code, Matrix<const T> constants) : width_(constants.cols) {
  const char* const what = "the steps of a function";
  const Index steps = static_cast<Index>(code.size()) / 4;
  require_fit(steps > 0 && steps <= kMostSteps && static_cast<Index>(code.size()) == 4 * steps && width_ > 0, what);
  for (Index s = 0; s < steps; ++s) {
    const Index* const at = code.data() + 4 * s;
    require_fit(at[0] >= 0 && at[0] < static_cast<Index>(Op::kCount), what);
    Step step{static_cast<Op>(at[0]), {0, 0, 0}};
    for (Index k = 0; k < operands(step.op); ++k) {
      require_fit(at[k + 1] <= s && at[k + 1] >= -constants.rows, what);
      step.from[k] = at[k + 1];
    }
    steps_.push_back(step);
  }
  constants_.assign(constants.data, constants.data + checked_product({constants.rows, width_}, what));
  at_zero_ = at(T(0));
}

template <class T>
void FunctionLayer<T>::fill(const T* x, Index first, Index count, T* y) const {
  const Index steps = static_cast<Index>(steps_.size()), rows = static_cast<Index>(constants_.size()) / width_;
  const Index block = std::min(kBlock, count);
  const Buffer<T> memory((steps + rows) * block);
  T* const constants = memory.data() + steps * block;
  for (Index begin = 0; begin < count; begin += block) {
    const Index n = std::min(block, count - begin);
    if (begin == 0 || width_ > 1) {
      for (Index k = 0; k < rows; ++k) {
        Index c = (first + begin) % width_;
        for (Index j = 0; j < n; ++j) {
          constants[k * block + j] = constants_[static_cast<std::size_t>(k * width_ + c)];
          c = c + 1 == width_ ? 0 : c + 1;
        }
      }
    }
    for (Index s = 0; s < steps; ++s) {
      const Step& step = steps_[static_cast<std::size_t>(s)];
      const T* from[3];
      for (Index k = 0; k < 3; ++k) {
        const Index at = step.from[k];
        from[k] = at == 0 ? x + begin : (at > 0 ? memory.data() + (at - 1) * block : constants - (at + 1) * block);
      }
      run(step.op, from, n, s + 1 == steps ? y + begin : memory.data() + s * block);
    }
  }
}

// Entry by entry, forward with the values.
template <class T>
void FunctionLayer<T>::fill_slopes(const T* x, Index first, Index count, T* y, T* slope) const {
  const Index steps = static_cast<Index>(steps_.size());
  const Buffer<T> memory(2 * steps);
  T *const value = memory.data(), *const derivative = memory.data() + steps;
  for (Index j = 0; j < count; ++j) {
    for (Index s = 0; s < steps; ++s) {
      const Step& step = steps_[static_cast<std::size_t>(s)];
      T operand[3] = {0, 0, 0}, d[3] = {0, 0, 0};
      for (Index k = 0; k < operands(step.op); ++k) {
        const Index at = step.from[k];
        const auto constant = static_cast<std::size_t>((-1 - at) * width_ + (first + j) % width_);
        operand[k] = at == 0 ? x[j] : (at > 0 ? value[at - 1] : constants_[constant]);
        d[k] = at == 0 ? T(1) : (at > 0 ? derivative[at - 1] : T(0));
      }
      const T* const from[3] = {&operand[0], &operand[1], &operand[2]};
      run(step.op, from, 1, value + s);
      derivative[s] = slope_of(step.op, operand, d, value[s]);
    }
    y[j] = value[steps - 1];
    slope[j] = derivative[steps - 1];
  }
}

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  return std::make_unique<FunctionLayer<T>>(fields.integers("code"), fields.matrix("constants"));
}

}  // namespace

void register_function(LayerKinds* kinds) { kinds->add("function", make<float>, make<double>); }

}  // namespace pylrp
