// Relevance of a function of one value by its contributions: y = (f(x) - f(0)) + f(0), the second part is a constant.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "base/buffer.hpp"
#include "base/pieces.hpp"
#include "layers/layer.hpp"
#include "rules/kernel_args.hpp"
#include "rules/stabilizer.hpp"

namespace pylrp {

// R_in = (y - f(0)) R / stab(y); what f(0) takes is counted as `constant`. fill(x, first column, count, y) computes f,
// at_zero(column) is f(0). 0 where y is 0: there is no receiver.
template <class T, class Zero, class Fill>
void relevance_by_contributions(const RelevanceJob<T>& job, Zero at_zero, const Threads& threads, Fill fill) {
  const Stabilizer<T> stabilizer(job.rule);
  const Index pieces = pieces_of(job.relevance.cols);
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(job.relevance.rows * pieces));
  each_piece(job.relevance.rows, job.relevance.cols, threads, [&](Index task, Index row, Index first, Index count) {
    const T* const r = job.relevance.row(row) + first;
    T* const out = job.results[0].row(row) + first;
    const Buffer<T> y(count);
    fill(job.inputs[0].row(row % job.batch) + first, first, count, y.data());
    kernels::Absorbed& page = lost[static_cast<std::size_t>(task)];
    for (Index j = 0; j < count; ++j) {
      const T q = stabilizer.share(r[j], y.data()[j], &page), zero = at_zero(first + j);
      out[j] = (y.data()[j] - zero) * q;
      page.constant += y.data()[j] == 0 ? 0 : static_cast<double>(zero * q);
    }
  });
  add_absorbed(lost, pieces, job.absorbed);
}

// R_in = x f'(x) R / y, the input times its gradient; `constant` takes what the tangent at x has at 0. slopes(x, first
// column, count, y, f') computes both.
template <class T, class Slopes>
void relevance_by_gradient(const RelevanceJob<T>& job, const Threads& threads, Slopes slopes) {
  Stabilizer<T> exact(nullptr);
  exact.epsilon = T(0);
  const Index pieces = pieces_of(job.relevance.cols);
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(job.relevance.rows * pieces));
  each_piece(job.relevance.rows, job.relevance.cols, threads, [&](Index task, Index row, Index first, Index count) {
    const T* const x = job.inputs[0].row(row % job.batch) + first;
    const T* const r = job.relevance.row(row) + first;
    T* const out = job.results[0].row(row) + first;
    const Buffer<T> memory(2 * count);
    T *const y = memory.data(), *const slope = memory.data() + count;
    slopes(x, first, count, y, slope);
    kernels::Absorbed& page = lost[static_cast<std::size_t>(task)];
    for (Index j = 0; j < count; ++j) {
      const T c = exact.share(r[j], y[j], &page), made = x[j] * slope[j] * c;
      page.constant += static_cast<double>(y[j] * c - made);
      out[j] = made;
    }
  });
  add_absorbed(lost, pieces, job.absorbed);
}

// c_in = c f(x) / x where f(0) = 0, from y = f(x); at 0 the limit, slope(column). There x may be a small number that
// stands for 0, beside y = 0.
template <class T, class Slope>
void coefficients_of_function(const RelevanceJob<T>& job, Slope slope, const Threads& threads) {
  each_piece(job.relevance.rows, job.relevance.cols, threads, [&](Index, Index row, Index first, Index count) {
    const T* const c = job.relevance.row(row) + first;
    const T* const x = job.inputs[0].row(row % job.batch) + first;
    const T* const y = job.output.row(row % job.batch) + first;
    T* const out = job.results[0].row(row) + first;
    for (Index j = 0; j < count; ++j) {  // the results may lie over c
      const T at_zero = std::abs(x[j]) < T(1e-15) ? slope(first + j) : T(0);
      out[j] = c[j] * (y[j] == 0 ? at_zero : y[j] / x[j]);
    }
  });
}

// The limit of f(x) / x at 0, from f(h) and f(-h) for a small h. 0 where there is none: at a kink, as ReLU has it, and
// where the function is not defined or grows without bound, as a root does.
template <class T>
inline constexpr T kNearZero = std::is_same_v<T, float> ? T(0x1p-9) : T(0x1p-14);
template <class T>
T slope_at_zero(T above, T below) {
  const T right = above / kNearZero<T>, left = -below / kNearZero<T>, slope = (right + left) / 2;
  const bool kink = std::abs(right - left) > T(0.1) * std::max(std::abs(right), std::abs(left)) &&
                    std::abs(right - left) > 16 * kNearZero<T>;
  return kink || !std::isfinite(slope) || std::abs(slope) > 1 / kNearZero<T> ? T(0) : slope;
}

// f(0) = 0 and nothing else is asked than that relevance passes.
inline Coefficients coefficients_of_function(const CompiledRule* rule, bool keeps_zero) {
  return keeps_zero && (rule == nullptr || rule->passes()) ? Coefficients::kAlong : Coefficients::kNever;
}

// A function that is explained under a rule, and hands relevance on unchanged without one.
inline Flow flow_of_function(const CompiledRule* rule) {
  return rule == nullptr || rule->passes() ? Flow::kIdentity : Flow::kProportional;
}

}  // namespace pylrp
