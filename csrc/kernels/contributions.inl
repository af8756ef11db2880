// The contributions w x of single outputs, one by one: a maximum picks those above zero, where products take w+ and w-,
// two multiply-adds. Maxima run beside multiply-adds (Zen 4: both in the time of one).
#if defined(__AVX2__)
// NaN stays NaN: the second operand is returned then.
#if defined(__AVX512F__)
constexpr int kContributionVectors = 7;
inline __attribute__((always_inline)) Vec<float> above_zero(Vec<float> v) {
  return reinterpret_cast<Vec<float>>(
      _mm512_maskz_max_ps(0xffff, _mm512_setzero_ps(), reinterpret_cast<__m512>(v)));  // unmasked, GCC 12 warns
}
inline __attribute__((always_inline)) Vec<float> below_zero(Vec<float> v) {
  return reinterpret_cast<Vec<float>>(_mm512_maskz_min_ps(0xffff, _mm512_setzero_ps(), reinterpret_cast<__m512>(v)));
}
inline __attribute__((always_inline)) Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> c) {
  return reinterpret_cast<Vec<float>>(
      _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
}
#else
constexpr int kContributionVectors = 3;  // 16 registers
inline __attribute__((always_inline)) Vec<float> above_zero(Vec<float> v) {
  return reinterpret_cast<Vec<float>>(_mm256_max_ps(_mm256_setzero_ps(), reinterpret_cast<__m256>(v)));
}
inline __attribute__((always_inline)) Vec<float> below_zero(Vec<float> v) {
  return reinterpret_cast<Vec<float>>(_mm256_min_ps(_mm256_setzero_ps(), reinterpret_cast<__m256>(v)));
}
inline __attribute__((always_inline)) Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> c) {
  return reinterpret_cast<Vec<float>>(
      _mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
}
#endif
inline __attribute__((always_inline)) Vec<float> sign_bits(Vec<float> v) {
  return reinterpret_cast<Vec<float>>(reinterpret_cast<Mask<float>>(v) & reinterpret_cast<Mask<float>>(splat(-0.0F)));
}
inline __attribute__((always_inline)) Vec<float> flip_signs(Vec<float> v, Vec<float> signs) {
  return reinterpret_cast<Vec<float>>(reinterpret_cast<Mask<float>>(v) ^ reinterpret_cast<Mask<float>>(signs));
}

// Sums of neighbouring lanes within 16 bytes, a's and b's by turns; then of a, b, c, d side by side in each 16 bytes.
template <int... kIndex>
inline __attribute__((always_inline)) Vec<float> add_by_twos(Vec<float> a, Vec<float> b, Lanes<kIndex...>) {
  constexpr int lanes = kLanes<float>;
  return shuffle<float, (kIndex / 4 * 4 + kIndex % 4 / 2 + kIndex % 2 * lanes)...>(a, b) +
         shuffle<float, (kIndex / 4 * 4 + kIndex % 4 / 2 + 2 + kIndex % 2 * lanes)...>(a, b);
}
template <int... kIndex>
inline __attribute__((always_inline)) Vec<float> add_by_fours(Vec<float> a, Vec<float> b, Lanes<kIndex...>) {
  constexpr int lanes = kLanes<float>;
  return shuffle<float, (kIndex / 4 * 4 + kIndex % 2 + kIndex % 4 / 2 * lanes)...>(a, b) +
         shuffle<float, (kIndex / 4 * 4 + kIndex % 2 + 2 + kIndex % 4 / 2 * lanes)...>(a, b);
}
template <int kHalf, int... kIndex>
inline __attribute__((always_inline)) void fold_to_four(Vec<float>& v, Lanes<kIndex...> lanes) {
  if constexpr (kHalf >= 4) {
    v += shuffle<float, (kIndex < kHalf ? kIndex + kHalf : kIndex)...>(v, v);
    fold_to_four<kHalf / 2>(v, lanes);
  }
}
inline __attribute__((always_inline)) void put_four_sums(const Vec<float>* v, float* to) {
  using All = typename MakeLanes<kLanes<float>>::type;
  Vec<float> all = add_by_fours(add_by_twos(v[0], v[1], All{}), add_by_twos(v[2], v[3], All{}), All{});
  fold_to_four<kLanes<float> / 2>(all, All{});
  __builtin_memcpy(to, &all, 4 * sizeof(float));
}

// What is summed up of contributions, and sent back.
enum class Side { kAbove, kFavoured, kApart };

template <int kVectors, Side kSide>
void sum_contributions_of(const Contributions& args, float* sums, float* below) {
  constexpr int lanes = kLanes<float>;
  const Vec<float> plain = splat(args.plain), extra = splat(args.extra);
  Vec<float> one = splat(1.0F);
  asm("" : "+v"(one));  // an addition as a multiply-add, for the units that maxima leave free
  for (Index i = 0; i < args.rows; ++i) {
    Vec<float> x[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      x[v] = load(args.x + i * args.stride + v * lanes);
    }
    const Index end = args.begins[i + 1];
    for (Index e = args.begins[i]; e < end; e += 4) {
      Vec<float> up[4], other[4];
#pragma GCC unroll 1
      for (int q = 0; q < 4; ++q) {
        const float* const row = args.w + args.at[e + q] * args.stride;
        Vec<float> high = {}, rest = {};
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          const Vec<float> w = load(row + v * lanes), c = x[v] * w, most = above_zero(c);
          if constexpr (kSide == Side::kApart) {
            high = v == 0 ? most : multiply_add(most, one, high);
            rest = v == 0 ? below_zero(c) : rest + below_zero(c);
          } else {
            high = v == 0 ? most : high + most;
          }
          if constexpr (kSide == Side::kFavoured) {
            rest = multiply_add(x[v], w, rest);
          }
        }
        up[q] = kSide == Side::kFavoured ? plain * rest + extra * high : high;
        other[q] = rest;
      }
      put_four_sums(up, sums + e);
      if constexpr (kSide == Side::kApart) {
        put_four_sums(other, below + e);
      }
    }
  }
}

template <int kVectors, Side kSide>
void send_contributions_of(const Contributions& args, const float* shares, const float* below, bool add, float* out) {
  constexpr int lanes = kLanes<float>;
  for (Index i = 0; i < args.rows; ++i) {
    const float* const from = args.x + i * args.stride;
    Vec<float> signs[kVectors], acc[kVectors] = {}, plain[kVectors] = {};
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      signs[v] = sign_bits(load(from + v * lanes));
    }
    const Index end = args.begins[i + 1];
    for (Index e = args.begins[i]; e < end; ++e) {
      const float* const row = args.w + args.at[e] * args.stride;
      const Vec<float> s = splat(shares[e]);
      [[maybe_unused]] const Vec<float> t = kSide == Side::kApart ? splat(below[e]) : s;
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const Vec<float> w = load(row + v * lanes), turned = flip_signs(w, signs[v]);
        acc[v] += s * above_zero(turned);
        if constexpr (kSide == Side::kFavoured) {
          plain[v] += s * w;
        } else if constexpr (kSide == Side::kApart) {
          acc[v] += t * below_zero(turned);
        }
      }
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      float* const to = out + i * args.stride + v * lanes;
      const Vec<float> x = load(from + v * lanes);
      Vec<float> sent = flip_signs(x, signs[v]) * acc[v];
      if constexpr (kSide == Side::kFavoured) {
        sent = splat(args.extra) * sent + splat(args.plain) * x * plain[v];
      }
      store(to, add ? load(to) + sent : sent);
    }
  }
}

template <Side kSide, int kVectors = kContributionVectors>
void sum_contributions(const Contributions& args, float* sums, float* below) {
  if constexpr (kVectors > 1) {
    if (args.columns <= (kVectors - 1) * kLanes<float>) {
      return sum_contributions<kSide, kVectors - 1>(args, sums, below);
    }
  }
  sum_contributions_of<kVectors, kSide>(args, sums, below);
}
template <Side kSide, int kVectors = kContributionVectors>
void send_contributions(const Contributions& args, const float* shares, const float* below, bool add, float* out) {
  if constexpr (kVectors > 1) {
    if (args.columns <= (kVectors - 1) * kLanes<float>) {
      return send_contributions<kSide, kVectors - 1>(args, shares, below, add, out);
    }
  }
  send_contributions_of<kVectors, kSide>(args, shares, below, add, out);
}
inline bool favours(const Contributions& args) { return args.plain != 0.0F || args.extra != 1.0F; }
inline void sum_of_contributions(const Contributions& args, float* sums, float* below) {
#if defined(__AVX512F__)
  if (below != nullptr) {
    return sum_contributions<Side::kApart>(args, sums, below);
  }
#endif
  favours(args) ? sum_contributions<Side::kFavoured>(args, sums, below)
                : sum_contributions<Side::kAbove>(args, sums, below);
}
inline void send_of_contributions(const Contributions& args, const float* shares, const float* below, bool add,
                                  float* out) {
#if defined(__AVX512F__)
  if (below != nullptr) {
    return send_contributions<Side::kApart>(args, shares, below, add, out);
  }
#endif
  favours(args) ? send_contributions<Side::kFavoured>(args, shares, below, add, out)
                : send_contributions<Side::kAbove>(args, shares, below, add, out);
}
#if defined(__AVX512F__)
constexpr bool kContributionsApart = true;
#else
constexpr bool kContributionsApart = false;
#endif
#endif
