// A step of an LSTM with its usual functions, and the coefficients of relevance on their way back through it: all that
// a unit needs while it is in registers. csrc/layers/recurrent/cell.hpp has the equations.

// tanh within 2.5 units in the last place: E / (E + 2) with E = e^(2 |x|) - 1 = 2^n p + (2^n - 1), p = e^r - 1. Near 0
// n is 0 and nothing cancels; where 2 |x| is above kStateEnd, tanh is 1.
template <class T>
constexpr T kStateEnd = sizeof(T) == 4 ? T(20) : T(40);
template <class T>
inline __attribute__((always_inline)) Vec<T> state_of(Vec<T> x) {
  using C = FunctionConstants<T>;
  Vec<T> y = magnitude_of<T>(x) * T(2);
  y = y > kStateEnd<T> ? splat(kStateEnd<T>) : y;
  const Vec<T> shifted = y * T(1.44269504088896340736) + C::kToInteger;
  const Vec<T> n = shifted - C::kToInteger;
  const Vec<T> high = y - n * C::kLog2, low = n * C::kLog2Rest, r = high - low;
  const Vec<T> rest = (high - r) - low;
  const Vec<T> p = r + (r * r * polynomial<T>(r, C::kExp) + rest);
  const Vec<T> power =
      power_of_two<T>(reinterpret_cast<Mask<T>>(shifted) - reinterpret_cast<Mask<T>>(splat(C::kToInteger)));
  const Vec<T> e = power * p + (power - T(1));
  return with_sign<T>(e / (e + T(2)), x);
}

// sigmoid within 3 units in the last place, 0 below -kGateEnd: the exponential function without what it takes to be
// nearer and to have subnormal values.
template <class T>
constexpr T kGateEnd = sizeof(T) == 4 ? T(87) : T(708);
template <class T>
inline __attribute__((always_inline)) Vec<T> gate_of(Vec<T> x) {
  using C = FunctionConstants<T>;
  Vec<T> y = -magnitude_of<T>(x);
  y = y < -kGateEnd<T> ? splat(-kGateEnd<T>) : y;
  const Vec<T> shifted = y * T(1.44269504088896340736) + C::kToInteger;
  const Vec<T> n = shifted - C::kToInteger;
  const Vec<T> r = (y - n * C::kLog2) - n * C::kLog2Rest;
  const Mask<T> power = reinterpret_cast<Mask<T>>(shifted) - reinterpret_cast<Mask<T>>(splat(C::kToInteger));
  const Vec<T> e = (T(1) + (r + r * r * polynomial<T>(r, C::kExp))) * power_of_two<T>(power);
  const Vec<T> q = e / (e + T(1)), below = x < -kGateEnd<T> ? Vec<T>{} : q;
  return x < Vec<T>{} ? below : T(1) - q;
}

// The gates, the cell's state, and o in the place of h: two loops, since a unit's chain of functions is long and others
// fill the time.
template <class T>
inline __attribute__((always_inline)) void lstm_state(const LSTMStep<T>& args, Index j, Index n) {
  const Index units = args.units;
  const T* const z = args.z + j;
  const Vec<T> sum = load_n(z + 3 * units, n);
  const Vec<T> i = gate_of<T>(load_n(z, n)), f = gate_of<T>(load_n(z + units, n)), g = state_of<T>(sum);
  const Vec<T> c = f * load_n(args.c + j, n) + i * g;
  store_n(args.h + j, gate_of<T>(load_n(z + 2 * units, n)), n);
  store_n(args.c + j, c, n);
  if (args.past == nullptr) {
    return;
  }
  store_n(args.past + j, f, n);
  store_n(args.inner + j, sum == Vec<T>{} ? Vec<T>{} : i * (g / sum), n);
  if (args.total != nullptr) {
    store_n(args.total + j, c, n);
    store_n(args.sum + j, sum, n);
  }
}

template <class T>
inline __attribute__((always_inline)) void lstm_output(const LSTMStep<T>& args, Index j, Index n) {
  const Vec<T> o = load_n(args.h + j, n), c = load_n(args.c + j, n), h = o * state_of<T>(c);
  store_n(args.h + j, h, n);
  if (args.past != nullptr) {
    store_n(args.outer + j, c == Vec<T>{} ? Vec<T>{} : h / c, n);
  }
}

// body(j, n) for whole vectors and what is left.
template <class T, class Body>
inline __attribute__((always_inline)) void each_vector(Index count, Body body) {
  Index j = 0;
  for (; j + kLanes<T> <= count; j += kLanes<T>) {
    body(j, kLanes<T>);
  }
  if (j < count) {
    body(j, count - j);
  }
}

template <class T>
void lstm_step(const LSTMStep<T>& given) {
  const LSTMStep<T> args = given;  // what is stored can't be part of it
  each_vector<T>(args.units, [&](Index j, Index n) { lstm_state<T>(args, j, n); });
  each_vector<T>(args.units, [&](Index j, Index n) { lstm_output<T>(args, j, n); });
}

template <class T>
void lstm_back(const LSTMBack<T>& given) {
  const LSTMBack<T> args = given;
  each_vector<T>(args.units, [&](Index j, Index n) {
    Vec<T> c_h = load_n(args.c_h + j, n);
    if (args.more != nullptr) {
      c_h += load_n(args.more + j, n);
    }
    const Vec<T> c_c = load_n(args.c_c + j, n) + load_n(args.outer + j, n) * c_h;
    const Vec<T> q = load_n(args.inner + j, n) * c_c;
    store_n(args.q + j, q, n);
    store_n(args.c_c + j, c_c * load_n(args.past + j, n), n);
    store_n(args.sum_q + j, load_n(args.sum_q + j, n) + q, n);
  });
}

template <class T>
void state_back(const StateBack<T>& given) {
  const StateBack<T> args = given;
  each_vector<T>(args.units, [&](Index j, Index n) {
    Vec<T> c = load_n(args.c_h + j, n);
    if (args.more != nullptr) {
      c += load_n(args.more + j, n);
    }
    const Vec<T> q = load_n(args.inner + j, n) * c;
    store_n(args.q + j, q, n);
    store_n(args.c_h + j, args.past == nullptr ? Vec<T>{} : load_n(args.past + j, n) * c, n);
    store_n(args.sum_q + j, load_n(args.sum_q + j, n) + q, n);
    if (args.reset != nullptr) {
      const Vec<T> down = load_n(args.reset + j, n) * q;
      store_n(args.down + j, down, n);
      store_n(args.sum_down + j, load_n(args.sum_down + j, n) + down, n);
    }
  });
}

template <class T>
void slopes(Index count, const T* factor, const T* x, const T* value, T* out) {
  each_vector<T>(count, [&](Index j, Index n) {
    const Vec<T> by = load_n(x + j, n), slope = load_n(value + j, n) / by;
    store_n(out + j, by == Vec<T>{} ? Vec<T>{} : load_n(factor + j, n) * slope, n);
  });
}
