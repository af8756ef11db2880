#include "layers/recurrent/cell.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cells.hpp"
#include "kernels/dispatch.hpp"

namespace pylrp {
namespace {

template <class T>
void apply(const Activation& f, Index count, const T* x, T* y) {
  switch (f.kind) {
    case ActivationKind::kSigmoid:
      return kernels::table<T>().function(kernels::Function::kSigmoid, count, x, y);
    case ActivationKind::kTanh:
      return kernels::table<T>().function(kernels::Function::kTanh, count, x, y);
    default:
      return activate<T>(f, {x, 1, count, count}, {y, 1, count, count}, Threads{});
  }
}

template <class T>
void clip(const Cell& cell, Index count, T* z) {
  if (cell.clip < std::numeric_limits<double>::infinity()) {
    const T most = static_cast<T>(cell.clip);
    std::transform(z, z + count, z, [most](T v) { return v < -most ? -most : (v > most ? most : v); });
  }
}

// out = factor (f(x) - f(0)) / x, which is bounded: 0 where x is 0, since nothing was summed up there. value: f(x), of
// an x that is clipped to [-most, most] for f.
template <class T>
void slopes(const Activation& f, double most, Index count, const T* __restrict factor, const T* __restrict x,
            const T* __restrict value, T* __restrict out) {
  const T zero = at_zero<T>(f);
  if (f.kind == ActivationKind::kSigmoid) {  // without the difference of nearly equal numbers
    const T bound = static_cast<T>(std::min(most, static_cast<double>(std::numeric_limits<T>::max())));
    for (Index j = 0; j < count; ++j) {
      const T given = std::min(std::max(x[j], -bound), bound);
      out[j] = x[j] == 0 ? T(0) : factor[j] * (std::tanh(given / 2) / (2 * x[j]));
    }
    return;
  }
  if (zero == 0) {
    return kernels::cells<T>().slopes(count, factor, x, value, out);
  }
  for (Index j = 0; j < count; ++j) {
    const T by = x[j] == 0 ? T(1) : x[j];
    out[j] = x[j] == 0 ? T(0) : factor[j] * ((value[j] - zero) / by);
  }
}

// Where something is written down: null where it is not.
template <class T>
T* place(const StepOfCell<T>& step, Index array) {
  return step.kept == nullptr || array < 0 ? nullptr : step.kept + array * step.cell.units;
}

template <class T>
void write_down(const T* from, Index count, T* to) {
  if (to != nullptr) {
    std::copy_n(from, count, to);
  }
}

// factor f(0), where it is kept
template <class T>
void write_constant(const Activation& f, const T* factor, Index count, T* to) {
  if (to != nullptr) {
    const T zero = at_zero<T>(f);
    std::transform(factor, factor + count, to, [zero](T v) { return v * zero; });
  }
}

template <class T>
void add_product(const T* p, const T* c, Index count, T* z) {
  for (Index j = 0; j < count; ++j) {
    z[j] += p[j] * c[j];
  }
}

// What relevance takes of a sum that goes through G, times a factor.
template <class T>
void keep_inner(const StepOfCell<T>& step, const T* factor, const T* sum, const T* value) {
  if (step.kept == nullptr) {
    return;
  }
  const Index units = step.cell.units;
  slopes(step.cell.inner, step.cell.clip, units, factor, sum, value, place(step, step.arrays->inner));
  write_down(sum, units, place(step, step.arrays->z));
  write_constant(step.cell.inner, factor, units, place(step, step.arrays->inner_0));
}

template <class T>
void run_lstm(const StepOfCell<T>& step) {
  const Cell& cell = step.cell;
  const Index n = cell.units;
  if (step.peepholes == nullptr && cell.is_usual_lstm()) {
    const auto kept = [&](Index array) { return place(step, array); };
    const KeptArrays& to = *step.arrays;
    return kernels::cells<T>().lstm_step({.units = n,
                                          .z = step.z,
                                          .h = step.h,
                                          .c = step.c,
                                          .past = kept(to.past),
                                          .outer = kept(to.outer),
                                          .inner = kept(to.inner),
                                          .total = kept(to.total),
                                          .sum = kept(to.z)});
  }
  T *const i = step.z, *const f = i + n, *const o = f + n, *const g = o + n, *const sum = step.scratch;
  if (step.peepholes != nullptr) {
    add_product(step.peepholes, step.c, n, i);
    add_product(step.peepholes + n, step.c, n, f);
  }
  std::copy_n(g, n, sum);
  const Index before = step.peepholes == nullptr ? 3 : 2;  // gates that do not wait for the new state
  clip(cell, before * n, i);
  clip(cell, n, g);
  apply(cell.gate, before * n, i, i);
  apply(cell.inner, n, g, g);
  if (cell.coupled) {
    std::transform(i, i + n, f, [](T v) { return 1 - v; });
  }
  keep_inner(step, i, sum, g);
  for (Index j = 0; j < n; ++j) {
    step.c[j] = f[j] * step.c[j] + i[j] * g[j];
  }
  if (step.peepholes != nullptr) {
    add_product(step.peepholes + 2 * n, step.c, n, o);
    clip(cell, n, o);
    apply(cell.gate, n, o, o);
  }
  T* const value = step.scratch + n;
  apply(cell.outer, n, step.c, value);  // as onnxruntime, which clips no states
  for (Index j = 0; j < n; ++j) {
    step.h[j] = o[j] * value[j];
  }
  if (step.kept != nullptr) {
    write_down(f, n, place(step, step.arrays->past));
    slopes(cell.outer, std::numeric_limits<double>::infinity(), n, o, step.c, value, place(step, step.arrays->outer));
    write_down(step.c, n, place(step, step.arrays->total));
    write_constant(cell.outer, o, n, place(step, step.arrays->outer_0));
  }
}

template <class T>
void run_gru(const StepOfCell<T>& step) {
  const Cell& cell = step.cell;
  const Index n = cell.units;
  T *const u = step.z, *const r = u + n, *const value = r + n, *const sum = step.scratch, *const rest = sum + n;
  if (cell.reset_after) {
    for (Index j = 0; j < 2 * n; ++j) {
      u[j] += step.recurrent[j];
    }
    clip(cell, 2 * n, u);
    apply(cell.gate, 2 * n, u, u);
    for (Index j = 0; j < n; ++j) {
      value[j] += r[j] * step.recurrent[2 * n + j];
    }
  }
  std::copy_n(value, n, sum);
  clip(cell, n, value);
  apply(cell.inner, n, value, value);
  for (Index j = 0; j < n; ++j) {
    rest[j] = 1 - u[j];
    step.h[j] = rest[j] * value[j] + u[j] * step.h[j];
  }
  keep_inner(step, rest, sum, value);
  if (step.kept != nullptr) {
    write_down(u, n, place(step, step.arrays->past));
    write_down(r, n, place(step, step.arrays->reset));
    write_down(step.h, n, place(step, step.arrays->total));
  }
}

template <class T>
void run_rnn(const StepOfCell<T>& step) {
  const Index n = step.cell.units;
  T *const sum = step.scratch, *const one = sum + n;
  std::copy_n(step.z, n, sum);
  clip(step.cell, n, step.z);
  apply(step.cell.inner, n, step.z, step.h);
  if (step.kept != nullptr) {
    std::fill_n(one, n, T(1));
    keep_inner(step, one, sum, step.h);
  }
}

}  // namespace

template <class T>
T at_zero(const Activation& f) {
  T zero = 0;
  if (!f.keeps_zero()) {
    apply(f, 1, &zero, &zero);
  }
  return zero;
}

KeptArrays::KeptArrays(const Cell& cell, bool stabilised) {
  const auto add = [&](Index* array, bool needed) { *array = needed ? count++ : -1; };
  const bool lstm = cell.kind == CellKind::kLSTM, gru = cell.kind == CellKind::kGRU;
  add(&past, lstm || gru);
  add(&outer, lstm);
  add(&inner, true);
  add(&reset, gru);
  add(&total, stabilised && (lstm || gru));
  add(&z, stabilised);
  add(&inner_0, at_zero<double>(cell.inner) != 0);
  add(&outer_0, lstm && at_zero<double>(cell.outer) != 0);
}

template <class T>
void run_cell(const StepOfCell<T>& step) {
  switch (step.cell.kind) {
    case CellKind::kLSTM:
      return run_lstm(step);
    case CellKind::kGRU:
      return run_gru(step);
    case CellKind::kRNN:
      return run_rnn(step);
  }
}

template <class T>
void run_gates(const Cell& cell, T* z, const T* h, T* state) {
  const Index n = cell.units;
  clip(cell, 2 * n, z);
  apply(cell.gate, 2 * n, z, z);
  for (Index j = 0; j < n; ++j) {
    state[j] = z[n + j] * h[j];
  }
}

template float at_zero<float>(const Activation&);
template double at_zero<double>(const Activation&);
template void run_cell<float>(const StepOfCell<float>&);
template void run_cell<double>(const StepOfCell<double>&);
template void run_gates<float>(const Cell&, float*, const float*, float*);
template void run_gates<double>(const Cell&, double*, const double*, double*);

}  // namespace pylrp
