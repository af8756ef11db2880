// exp, tanh, sigmoid and erf of whole vectors, within 2 units in the last place (tests/cpp/test_kernels_functions.cpp
// measures that). NaN stays NaN, infinities have their limits, -0 keeps its sign.
//
// exp: x = n ln 2 + r with |r| <= ln 2 / 2, Taylor's polynomial of e^r, times 2^n; r and 1 + r keep what they round
// off. sigmoid follows from it. tanh and erf: x + x p(x^2) below 0.6 and 1; above, 1 - 2 / (e^(2 x) + 1) and 1 -
// e^(-x^2) g(t) with t = (x - k) / (x + k). bench/function_coefficients.py computed p and g.

template <class T>
struct FunctionConstants;
template <>
struct FunctionConstants<float> {
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr float kToInteger = 12582912.0f;       // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float kLowest = -104, kHighest = 89;  // beyond, e^x is 0 and infinite
  static constexpr float kLog2 = 0.693145752f, kLog2Rest = 1.42860677e-6f;  // n * kLog2 is exact
  static constexpr float kErfEnd = 4, kErfCentre = 2;
  // 1 / k! from k = 2
  static constexpr float kExp[] = {0.5f, 0.166666667f, 0.0416666667f, 0.00833333333f, 0.00138888889f, 0.000198412698f};
  static constexpr float kErf[] = {0.128379166f,   -0.376126267f,    0.112835947f,  -0.026854212f,
                                   0.00518908742f, -0.000801686429f, 7.87587506e-5f};  // erf(x) / x - 1 in x^2
  static constexpr float kTanh[] = {-0.333333332f, 0.133333129f,   -0.0539615518f,
                                    0.021788322f,  -0.0084100708f, 0.00237076564f};  // tanh(x) / x - 1, over x^2
  static constexpr float kErfTail[] = {0.255395676f,   -0.427185848f,  0.241658211f,     -0.0789785233f,
                                       0.00373214135f, 0.00699485541f, -0.000836589974f, -0.000944159634f};
};
template <>
struct FunctionConstants<double> {
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr double kToInteger = 6755399441055744.0;
  static constexpr double kLowest = -746, kHighest = 710;
  static constexpr double kLog2 = 0.69314718048553913832, kLog2Rest = 7.4406171100123967161e-11;
  static constexpr double kErfEnd = 6, kErfCentre = 3;
  static constexpr double kExp[] = {1.0 / 2,       1.0 / 6,        1.0 / 24,        1.0 / 120,
                                    1.0 / 720,     1.0 / 5040,     1.0 / 40320,     1.0 / 362880,
                                    1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
  static constexpr double kErf[] = {0.128379167095512567,    -0.376126389031835404,   0.112837916709450063,
                                    -0.0268661706432377704,  0.00522397760711642273,  -0.000854832597538969208,
                                    0.000120552949048397079, -1.49247369074196603e-5, 1.64474247033173624e-6,
                                    -1.62084838018717059e-7, 1.37200645467776856e-8,  -7.79589882700214224e-10};
  static constexpr double kTanh[] = {-0.333333333333333332,    0.133333333333332063,      -0.0539682539680853062,
                                     0.0218694885273681084,    -0.00886323529280328939,   0.00359212425000869239,
                                     -0.00145579588557346344,  0.000589768099468826773,   -0.000237952013839249947,
                                     0.0000933243223384744719, -0.0000320866140379359905, 6.93404642098895339e-6};
  static constexpr double kErfTail[] = {0.17900115118138995,     -0.326233560043037175,   0.245603801712331945,
                                        -0.150115936500787439,   0.0716658371977487434,   -0.0243924993182731931,
                                        0.00426913634750825636,  0.000707746444390153731, -0.000597062351709328428,
                                        4.52547263548335414e-5,  6.40618207353054674e-5,  -1.28488945125235288e-5,
                                        -8.00802131941268433e-6, 2.02360317964175664e-6,  1.28019008629626619e-6};
};

template <class T, int kCount>
inline __attribute__((always_inline)) Vec<T> polynomial(Vec<T> x, const T (&coefficients)[kCount]) {
  Vec<T> value = splat(coefficients[kCount - 1]);
  for (int k = kCount - 2; k >= 0; --k) {
    value = value * x + coefficients[k];
  }
  return value;
}

template <class T>
inline __attribute__((always_inline)) Vec<T> magnitude_of(Vec<T> x) {
  return reinterpret_cast<Vec<T>>(reinterpret_cast<Mask<T>>(x) & ~reinterpret_cast<Mask<T>>(splat(T(-0.0))));
}
// y >= 0 with the sign of x
template <class T>
inline __attribute__((always_inline)) Vec<T> with_sign(Vec<T> y, Vec<T> x) {
  const Mask<T> sign = reinterpret_cast<Mask<T>>(splat(T(-0.0)));
  return reinterpret_cast<Vec<T>>(reinterpret_cast<Mask<T>>(y) | (reinterpret_cast<Mask<T>>(x) & sign));
}
template <class T>
inline __attribute__((always_inline)) Vec<T> power_of_two(Mask<T> n) {
  using C = FunctionConstants<T>;
  return reinterpret_cast<Vec<T>>((n + C::kBias) << C::kMantissa);
}

template <class T>
inline __attribute__((always_inline)) Vec<T> exp_of(Vec<T> x) {
  using C = FunctionConstants<T>;
  x = x < C::kLowest ? splat(C::kLowest) : x;
  x = x > C::kHighest ? splat(C::kHighest) : x;
  const Vec<T> shifted = x * T(1.44269504088896340736) + C::kToInteger;
  const Vec<T> n = shifted - C::kToInteger;
  const Vec<T> high = x - n * C::kLog2, low = n * C::kLog2Rest, r = high - low;
  const Vec<T> rest = (high - r) - low;
  const Vec<T> sum = r + T(1), sum_rest = r - (sum - T(1));
  const Vec<T> y = sum + (sum_rest + (r * r * polynomial<T>(r, C::kExp) + rest));
  const Mask<T> power = reinterpret_cast<Mask<T>>(shifted) - reinterpret_cast<Mask<T>>(splat(C::kToInteger));
  const Mask<T> half = power >> 1;  // 2^power alone may be no number where e^x still is one
  return y * power_of_two<T>(half) * power_of_two<T>(power - half);
}

// With e = e^-|x|, which does not overflow, 1 / (1 + e) = 1 - q or q = e / (1 + e), as e - e q: q's own rounding counts
// for little there.
template <class T>
inline __attribute__((always_inline)) Vec<T> sigmoid_of(Vec<T> x) {
  const Vec<T> e = exp_of<T>(-magnitude_of<T>(x)), q = e / (e + T(1));
  return x < Vec<T>{} ? e - e * q : T(1) - q;
}

template <class T>
inline __attribute__((always_inline)) Vec<T> tanh_of(Vec<T> x) {
  const Vec<T> y = magnitude_of<T>(x), square = y * y;
  const Vec<T> inner = y + y * (square * polynomial<T>(square, FunctionConstants<T>::kTanh));
  const Vec<T> outer = T(1) - T(2) / (exp_of<T>(y + y) + T(1));
  return with_sign<T>(y < T(0.6) ? inner : outer, x);
}

template <class T>
inline __attribute__((always_inline)) Vec<T> erf_of(Vec<T> x) {
  using C = FunctionConstants<T>;
  const Vec<T> inner = x + x * polynomial<T>(x * x, C::kErf);
  Vec<T> y = magnitude_of<T>(x);
  const Mask<T> small = y < T(1);
  y = y > C::kErfEnd ? splat(C::kErfEnd) : y;
  const Vec<T> tail = polynomial<T>((y - C::kErfCentre) / (y + C::kErfCentre), C::kErfTail);
  return small ? inner : with_sign<T>(T(1) - exp_of<T>(-y * y) * tail, x);
}

template <class T, class F>
void map_vectors(Index n, const T* x, T* y, F f) {
  Index i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) {
    store<T>(y + i, f(load<T>(x + i)));
  }
  if (i < n) {
    store_part(y + i, f(load_part(x + i, n - i)), n - i);
  }
}

template <class T>
void function(Function f, Index n, const T* x, T* y) {
  switch (f) {
    case Function::kExp:
      return map_vectors(n, x, y, [](Vec<T> v) { return exp_of<T>(v); });
    case Function::kSigmoid:
      return map_vectors(n, x, y, [](Vec<T> v) { return sigmoid_of<T>(v); });
    case Function::kTanh:
      return map_vectors(n, x, y, [](Vec<T> v) { return tanh_of<T>(v); });
    case Function::kErf:
      return map_vectors(n, x, y, [](Vec<T> v) { return erf_of<T>(v); });
  }
}
