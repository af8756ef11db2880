// What rounding to whole multiples of a step does to a value: quantised activations, in their own units.
//
//   y = step * clip(round(x / step), low, high)
//
// With steps that are given, one or one an entry; or, in a dynamic one, of each sample: (largest - smallest) / levels,
// both with 0 among them, low = -zero point and high = levels - zero point. Ties round to even, as ONNX has it. f(0) =
// 0: relevance passes unchanged, as through other functions of one value.
#include <algorithm>
#include <cmath>
#include <vector>

#include "base/pieces.hpp"
#include "layers/function_relevance.hpp"
#include "layers/registry.hpp"

namespace pylrp {
namespace {

// To the nearest whole number, ties to even: adding pushes the fraction out. |x| must be below 2^22.
template <class T>
T rounded(T x) {
  constexpr T kShift = sizeof(T) == sizeof(float) ? T(12582912.0) : T(6755399441055744.0);
  return (x + kShift) - kShift;
}

template <class T>
T quantized(T x, T step, T low, T high) {
  const T steps = x / step;
  return step * rounded(steps < low ? low : (steps > high ? high : steps));  // NaN stays NaN
}

template <class T>
class QuantizeLayer : public Layer<T> {
 public:
  QuantizeLayer(std::vector<T> step, std::vector<T> low, std::vector<T> high, T levels)
      : step_(std::move(step)), low_(std::move(low)), high_(std::move(high)), levels_(levels) {
    const char* const what = "the steps and bounds of a quantised value";
    require_fit(low_.size() == step_.size() && high_.size() == step_.size() && (!step_.empty() || levels_ > 0), what);
  }
  Flow flow() const override { return Flow::kIdentity; }
  Flow flow_under(const CompiledRule* rule) const override { return flow_of_function(rule); }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override {
    require_pixels(inputs, output, std::max<Index>(1, width()), "a quantised value's steps and its input");
  }
  bool in_place() const override { return true; }
  bool keeps_zero() const override { return true; }
  bool makes_nonnegative() const override {
    return !step_.empty() && std::all_of(low_.begin(), low_.end(), [](T v) { return v >= 0; });
  }
  bool keeps_nonnegative() const override { return true; }

  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
               const Threads& threads) const override {
    const std::vector<Scale> of_samples = scales(inputs[0], threads);
    each_piece(output.rows, output.cols, threads, [&](Index, Index row, Index first, Index count) {
      fill(inputs[0].row(row) + first, first, count, scale_of(of_samples, row), output.row(row) + first);
    });
  }
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  struct Scale {
    T step, low, high;
  };
  Index width() const { return static_cast<Index>(step_.size()); }
  void by_gradient(const RelevanceJob<T>& job, const std::vector<Scale>& of_samples, const Threads& threads) const;
  // One a sample; none where steps are given.
  std::vector<Scale> scales(Matrix<const T> x, const Threads& threads) const;
  Scale scale_of(const std::vector<Scale>& of_samples, Index row) const {
    return of_samples.empty() ? Scale{step_[0], low_[0], high_[0]} : of_samples[static_cast<std::size_t>(row)];
  }
  // first: the column of x[0] in a sample.
  void fill(const T* x, Index first, Index count, const Scale& scale, T* y) const {
    if (width() > 1) {
      for (Index j = 0; j < count; ++j) {
        const auto c = static_cast<std::size_t>((first + j) % width());
        y[j] = quantized(x[j], step_[c], low_[c], high_[c]);
      }
      return;
    }
    const T step = scale.step, low = scale.low, high = scale.high;
    for (Index j = 0; j < count; ++j) {
      y[j] = quantized(x[j], step, low, high);
    }
  }

  std::vector<T> step_, low_, high_;
  T levels_;
};

template <class T>
std::vector<typename QuantizeLayer<T>::Scale> QuantizeLayer<T>::scales(Matrix<const T> x,
                                                                       const Threads& threads) const {
  std::vector<Scale> found(step_.empty() ? static_cast<std::size_t>(x.rows) : 0);
  parallel_for(static_cast<Index>(found.size()), threads, [&](Index row) {
    T smallest = 0, largest = 0;
    for (Index j = 0; j < x.cols; ++j) {
      const T v = x.row(row)[j];
      smallest = v < smallest ? v : smallest;
      largest = v > largest ? v : largest;
    }
    const T step = largest > smallest ? (largest - smallest) / levels_ : T(1);
    const T zero = rounded(std::clamp(-smallest / step, T(0), levels_));
    found[static_cast<std::size_t>(row)] = {step, -zero, levels_ - zero};
  });
  return found;
}

template <class T>
void QuantizeLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const std::vector<Scale> of_samples = scales(job.inputs[0], threads);
  if (is_gradient(job.rule)) {
    return by_gradient(job, of_samples, threads);
  }
  const Stabilizer<T> stabilizer(job.rule);
  const Index pieces = pieces_of(job.relevance.cols);
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(job.relevance.rows * pieces));
  each_piece(job.relevance.rows, job.relevance.cols, threads, [&](Index task, Index row, Index first, Index count) {
    const Index sample = row % job.batch;
    const Buffer<T> y(count);
    fill(job.inputs[0].row(sample) + first, first, count, scale_of(of_samples, sample), y.data());
    const T* const r = job.relevance.row(row) + first;
    T* const out = job.results[0].row(row) + first;
    for (Index j = 0; j < count; ++j) {
      out[j] = y.data()[j] * stabilizer.share(r[j], y.data()[j], &lost[static_cast<std::size_t>(task)]);
    }
  });
  add_absorbed(lost, pieces, job.absorbed);
}

// Straight through the rounding: the gradient is that of the clip.
template <class T>
void QuantizeLayer<T>::by_gradient(const RelevanceJob<T>& job, const std::vector<Scale>& of_samples,
                                   const Threads& threads) const {
  Stabilizer<T> exact(nullptr);
  exact.epsilon = T(0);
  const Index pieces = pieces_of(job.relevance.cols);
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(job.relevance.rows * pieces));
  each_piece(job.relevance.rows, job.relevance.cols, threads, [&](Index task, Index row, Index first, Index count) {
    const Index sample = row % job.batch;
    const T *const x = job.inputs[0].row(sample) + first, *const r = job.relevance.row(row) + first;
    T* const out = job.results[0].row(row) + first;
    const Scale scale = scale_of(of_samples, sample);
    const Buffer<T> memory(count);
    T* const y = memory.data();
    fill(x, first, count, scale, y);
    kernels::Absorbed& page = lost[static_cast<std::size_t>(task)];
    for (Index j = 0; j < count; ++j) {
      const auto at = static_cast<std::size_t>(width() > 1 ? (first + j) % width() : 0);
      const Scale own = width() > 1 ? Scale{step_[at], low_[at], high_[at]} : scale;
      const T c = exact.share(r[j], y[j], &page), steps = x[j] / own.step;
      out[j] = steps < own.low || steps > own.high ? T(0) : x[j] * c;
      page.constant += static_cast<double>(y[j] * c - out[j]);
    }
  });
  add_absorbed(lost, pieces, job.absorbed);
}

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  const bool given = fields.has("step");
  const std::vector<T> none;
  return std::make_unique<QuantizeLayer<T>>(given ? fields.vector("step") : none, given ? fields.vector("low") : none,
                                            given ? fields.vector("high") : none,
                                            given ? T(0) : static_cast<T>(fields.real("levels")));
}

}  // namespace

void register_quantize(LayerKinds* kinds) { kinds->add("quantize", make<float>, make<double>); }

}  // namespace pylrp
