// Rows of attention: scores with what is added to them, the powers of their softmax, the coefficients of its
// first-order Taylor expansion. An added number that is the largest there is closes its place: the sum is -inf.

template <class T>
struct LargestNumber;
template <>
struct LargestNumber<float> {
  static constexpr float kValue = 3.40282347e+38f;
};
template <>
struct LargestNumber<double> {
  static constexpr double kValue = 1.79769313486231571e+308;
};

template <class T>
inline __attribute__((always_inline)) Vec<T> masked_score(Vec<T> score, Vec<T> added) {
  return added >= LargestNumber<T>::kValue ? splat(T(-__builtin_inf())) : score + added;
}

// z = s + m, m may be null; returns the largest, 0 where all are -inf. A NaN stays in z.
template <class T>
T masked_scores(Index n, const T* s, const T* m, T* z) {
  constexpr int lanes = kLanes<T>;
  const Vec<T> least = splat(T(-__builtin_inf()));
  Vec<T> most = least;
  Index i = 0;
  for (; i + lanes <= n; i += lanes) {
    const Vec<T> v = m == nullptr ? load(s + i) : masked_score<T>(load(s + i), load(m + i));
    store<T>(z + i, v);
    most = v > most ? v : most;
  }
  T found = most[0];
  for (int l = 1; l < lanes; ++l) {
    found = most[l] > found ? most[l] : found;
  }
  for (; i < n; ++i) {
    z[i] = m == nullptr ? s[i] : (m[i] >= LargestNumber<T>::kValue ? T(-__builtin_inf()) : s[i] + m[i]);
    found = z[i] > found ? z[i] : found;
  }
  return found == T(-__builtin_inf()) ? T(0) : found;
}

// z becomes exp(z - most); returns the sum.
template <class T>
T powers(Index n, T most, T* z) {
  constexpr int lanes = kLanes<T>;
  Vec<T> total = {};
  Index i = 0;
  for (; i + lanes <= n; i += lanes) {
    const Vec<T> e = exp_of<T>(load(z + i) - most);
    store<T>(z + i, e);
    total += e;
  }
  if (i < n) {
    store_part(z + i, exp_of<T>(load_part(z + i, n - i) - most), n - i);
    total += load_part(z + i, n - i);
  }
  return sum_lanes<T>(total);
}

template <class T>
void taylor_of_scores(const TaylorOfScores<T>& args) {
  constexpr int lanes = kLanes<T>;
  const Vec<T> zero = {};
  Vec<T> by_scores = zero, by_added = zero;
  const auto at = [&](Vec<T> s, Vec<T> m, Vec<T> e, Vec<T> c) {
    const Vec<T> z = s + m;
    c = (e == zero) | (s == zero) | (z == zero) ? zero : e * args.share * (c - args.all);
    by_scores += c == zero ? zero : z * c;
    by_added += c == zero ? zero : m * c;
    return c;
  };
  Index i = 0;
  for (; i + lanes <= args.n; i += lanes) {
    const Vec<T> m = args.added == nullptr ? zero : load(args.added + i);
    store<T>(args.c + i, at(load(args.scores + i), m, load(args.powers + i), load(args.c + i)));
  }
  if (i < args.n) {
    const Index rest = args.n - i;
    const Vec<T> m = args.added == nullptr ? zero : load_part(args.added + i, rest);
    const Vec<T> s = load_part(args.scores + i, rest), e = load_part(args.powers + i, rest);
    store_part(args.c + i, at(s, m, e, load_part(args.c + i, rest)), rest);
  }
  *args.by_scores += static_cast<double>(sum_lanes<T>(by_scores));
  *args.by_added += static_cast<double>(sum_lanes<T>(by_added));
}
