// Numbers in bfloat16, the upper half of a float: rounding, words of two, rows of weights that are stored so.

// Weights in half the bytes: the lower half of the float is zero.
#if defined(__AVX512F__)
inline __attribute__((always_inline)) Vec<float> load_weight(const Bfloat16* w) {
  const __m512i wide = _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)));
  return reinterpret_cast<Vec<float>>(_mm512_maskz_slli_epi32(0xffff, wide, 16));
}
#elif defined(__AVX2__)
inline __attribute__((always_inline)) Vec<float> load_weight(const Bfloat16* w) {
  const __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w)));
  const __m256i moved = _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7,  //
                                         -1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
  return reinterpret_cast<Vec<float>>(_mm256_shuffle_epi8(both, moved));
}
#else
inline Vec<float> load_weight(const Bfloat16* w) {
  typedef std::uint16_t Halves __attribute__((vector_size(PYLRP_VECTOR_BYTES / 2)));
  Halves halves;
  __builtin_memcpy(&halves, w, sizeof halves);
  return reinterpret_cast<Vec<float>>(__builtin_convertvector(halves, Words) << 16);
}
#endif
inline Vec<float> load_weight_part(const Bfloat16* w, Index n) {
  Bfloat16 some[kLanes<float>] = {};
  __builtin_memcpy(some, w, static_cast<unsigned long>(n) * sizeof *w);
  return load_weight(some);
}

// To nearest, ties to even, as the upper halves of words. NaN stays NaN, denormals become zero: so do the processors'
// instructions, whatever their modes are.
inline __attribute__((always_inline)) Words rounded(Vec<float> v) {
  const Words bits = reinterpret_cast<Words>(v);
  const Mask<float> magnitude = reinterpret_cast<Mask<float>>(bits & 0x7fffffffU);
  const Words nearest = (bits + (0x7fffU + (bits >> 16 & 1U))) & 0xffff0000U;
  const Words quiet = (bits | 0x00400000U) & 0xffff0000U;
  const Words kept = magnitude > 0x7f800000 ? quiet : nearest;
  return magnitude < 0x00800000 ? bits & 0x80000000U : kept;
}
inline __attribute__((always_inline)) Vec<float> joined(Vec<float> lower, Vec<float> upper) {
  return reinterpret_cast<Vec<float>>(rounded(lower) >> 16 | rounded(upper));
}

inline void join_rows(Index words, Index n, Index k, const float* x, const std::int32_t* order, float* to) {
  for (Index p = 0; p < words; ++p, to += n) {
    const Index lower = order ? order[2 * p] : 2 * p, upper = order ? order[2 * p + 1] : 2 * p + 1;
    for (Index i = 0; i < n; i += kLanes<float>) {
      const Vec<float> v = lower < k ? load_n(x + lower * n + i, n - i) : Vec<float>{};
      const Vec<float> u = upper < k ? load_n(x + upper * n + i, n - i) : Vec<float>{};
      store_n(to + i, joined(v, u), n - i);
    }
  }
}

template <int... kIndex>
inline __attribute__((always_inline)) Vec<float> joined_neighbours(const Vec<float>& a, const Vec<float>& b,
                                                                   Lanes<kIndex...>) {
  return joined(shuffle<float, (2 * kIndex)...>(a, b), shuffle<float, (2 * kIndex + 1)...>(a, b));
}
inline void join(Index n, const float* x, float* words) {
  constexpr int lanes = kLanes<float>;
  for (Index i = 0; i < n; i += 2 * lanes) {
    const Vec<float> a = load_n(x + i, n - i);
    const Vec<float> b = n - i > lanes ? load_n(x + i + lanes, n - i - lanes) : Vec<float>{};
    store_n(words + i / 2, joined_neighbours(a, b, typename MakeLanes<lanes>::type{}), (n - i + 1) / 2);
  }
}

inline void round_to_bfloat16(Index n, const float* x, float* y) {
  for (Index i = 0; i < n; i += kLanes<float>) {
    store_n(y + i, reinterpret_cast<Vec<float>>(rounded(load_n(x + i, n - i))), n - i);
  }
}
