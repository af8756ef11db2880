#include "layers/recurrent/back.hpp"

namespace pylrp {
namespace {

template <class T>
const T* kept(const StepBack<T>& step, Index array) {
  return array < 0 ? nullptr : step.kept + array * step.cell.units;
}

// A sum's coefficient with its stabiliser: of R = value coefficient + more.
template <class T>
double stabilise(const StepBack<T>& step, const T* value, T more, T* coefficient) {
  double taken = 0;
  for (Index j = 0; j < step.cell.units; ++j) {
    const T guard = value[j] < 0 ? -step.stabiliser.epsilon : step.stabiliser.epsilon;
    const T arrived = value[j] * coefficient[j] + more;
    coefficient[j] = arrived == 0 ? T(0) : arrived / (value[j] + guard);
    taken += static_cast<double>(guard * coefficient[j]);
  }
  if (!step.stabiliser.spreads) {
    step.lost->stabilizer += taken;
  }
  return taken;
}

// What f(0) takes, where it is not 0.
template <class T>
void constants(const StepBack<T>& step, Index array, const T* coefficient) {
  if (array >= 0) {
    step.lost->constant += dot(kept(step, array), coefficient, step.cell.units);
  }
}

template <class T>
void back_lstm(const StepBack<T>& step) {
  const Index n = step.cell.units;
  T *const c_h = step.c_h, *const c_c = step.c_c;
  const T *const past = kept(step, step.arrays.past), *const outer = kept(step, step.arrays.outer),
                 *const inner = kept(step, step.arrays.inner);
  constants(step, step.arrays.outer_0, c_h);
  for (Index j = 0; j < n; ++j) {
    c_c[j] += outer[j] * c_h[j];
  }
  if (step.stabiliser.used) {
    const double taken = stabilise(step, kept(step, step.arrays.total), step.spread->h + step.spread->c, c_c);
    step.spread->c = step.stabiliser.spreads ? static_cast<T>(taken / static_cast<double>(2 * n)) : T(0);
  }
  constants(step, step.arrays.inner_0, c_c);
  for (Index j = 0; j < n; ++j) {
    step.q[j] = inner[j] * c_c[j];
    c_c[j] *= past[j];
  }
}

template <class T>
void back_gru(const StepBack<T>& step) {
  T* const c_h = step.c_h;
  const T *const past = kept(step, step.arrays.past), *const inner = kept(step, step.arrays.inner);
  if (step.stabiliser.used) {
    stabilise(step, kept(step, step.arrays.total), T(0), c_h);
  }
  constants(step, step.arrays.inner_0, c_h);
  for (Index j = 0; j < step.cell.units; ++j) {
    step.q[j] = inner[j] * c_h[j];
    c_h[j] *= past[j];
  }
}

template <class T>
void back_rnn(const StepBack<T>& step) {
  T* const c_h = step.c_h;
  const T* const inner = kept(step, step.arrays.inner);
  constants(step, step.arrays.inner_0, c_h);
  for (Index j = 0; j < step.cell.units; ++j) {
    step.q[j] = inner[j] * c_h[j];
    c_h[j] = 0;
  }
}

// Through the sum in G: its stabiliser, its biases.
template <class T>
void through_sum(const StepBack<T>& step) {
  const Index n = step.cell.units;
  const T* const q = step.q;
  const double taken = step.stabiliser.used ? stabilise(step, kept(step, step.arrays.z), step.spread->c, step.q) : 0.0;
  double biases = dot(step.bias, q, n);
  if (step.cell.reset_after) {
    const T* const reset = kept(step, step.arrays.reset);
    for (Index j = 0; j < n; ++j) {
      biases += static_cast<double>(step.state_bias[j] * (reset[j] * q[j]));
    }
  }
  if (step.stabiliser.spreads) {
    *step.spread_x = step.spread->h = static_cast<T>((taken + biases) / static_cast<double>(step.features + n));
  } else {
    step.lost->bias += biases;
  }
}

}  // namespace

template <class T>
double dot(const T* a, const T* b, Index count) {
  double part[4] = {};
  Index j = 0;
  for (; j + 4 <= count; j += 4) {
    for (Index k = 0; k < 4; ++k) {
      part[k] += static_cast<double>(a[j + k] * b[j + k]);
    }
  }
  for (; j < count; ++j) {
    part[0] += static_cast<double>(a[j] * b[j]);
  }
  return (part[0] + part[1]) + (part[2] + part[3]);
}

template <class T>
void run_back(const StepBack<T>& step) {
  switch (step.cell.kind) {
    case CellKind::kLSTM:
      back_lstm(step);
      break;
    case CellKind::kGRU:
      back_gru(step);
      break;
    case CellKind::kRNN:
      back_rnn(step);
      break;
  }
  through_sum(step);
}

template double dot<float>(const float*, const float*, Index);
template double dot<double>(const double*, const double*, Index);
template void run_back<float>(const StepBack<float>&);
template void run_back<double>(const StepBack<double>&);

}  // namespace pylrp
