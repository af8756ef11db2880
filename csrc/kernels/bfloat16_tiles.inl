// Tiles of products whose operands are words of two bfloat16, with the processor's instruction or by shifts and
// multiply-adds. The product of two bfloat16 is exact in a float, so only the sums round.

typedef std::uint32_t Words __attribute__((vector_size(PYLRP_VECTOR_BYTES)));

// A word in every lane. Bits are copied: as numbers, NaN and denormals might change.
inline __attribute__((always_inline)) Words splat_word(const float* word) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, word, sizeof bits);
  return bits - Words{};
}
inline __attribute__((always_inline)) Words load_words(const float* p) { return reinterpret_cast<Words>(load(p)); }

#if defined(__AVX512BF16__)
inline __attribute__((always_inline)) Vec<float> dot_words(Vec<float> acc, Words a, Words b) {
  return reinterpret_cast<Vec<float>>(
      _mm512_dpbf16_ps(reinterpret_cast<__m512>(acc), reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
}
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
inline __attribute__((always_inline)) Vec<float> dot_words(Vec<float> acc, Words a, Words b) {
  return reinterpret_cast<Vec<float>>(vbfdotq_f32(reinterpret_cast<float32x4_t>(acc), reinterpret_cast<bfloat16x8_t>(a),
                                                  reinterpret_cast<bfloat16x8_t>(b)));
}
#else
#define PYLRP_EMULATES_BFLOAT16 1
// The instructions know no denormals, neither as operands nor as sums on the way.
inline __attribute__((always_inline)) Vec<float> without_denormals(Words bits) {
  const auto magnitude = reinterpret_cast<Mask<float>>(bits & 0x7fffffffU);
  return reinterpret_cast<Vec<float>>(magnitude < 0x00800000 ? bits & 0x80000000U : bits);
}
inline __attribute__((always_inline)) Vec<float> without_denormals(Vec<float> v) {
  return without_denormals(reinterpret_cast<Words>(v));
}
inline __attribute__((always_inline)) Vec<float> lower_half(Words w) { return without_denormals(w << 16); }
inline __attribute__((always_inline)) Vec<float> upper_half(Words w) { return without_denormals(w & 0xffff0000U); }
#endif

#ifdef PYLRP_EMULATES_BFLOAT16
// For tests of the loops around them, one row at a time: little code. What is asked for goes by numbers (operands.hpp).
inline __attribute__((always_inline)) Vec<float> dot_words(Vec<float> acc, Words a, Words b) {
  acc = without_denormals(acc + upper_half(a) * upper_half(b));  // in the order of the instructions
  return without_denormals(acc + lower_half(a) * lower_half(b));
}
inline void add_words(const float* left, const float* panel, Vec<float>* acc) {
  for (int h = 0; h < 2; ++h) {
    acc[h] = dot_words(acc[h], splat_word(left), load_words(panel + h * kLanes<float>));
  }
}
inline void store_sums(const Vec<float>* acc, int halves, bool add, float* out) {
  for (int h = 0; h < halves; ++h, out += kLanes<float>) {
    store(out, add ? load(out) + acc[h] : acc[h]);
  }
}
template <int kRows>
void tile_words(int rows, Index words, const float* left, const float* panel, bool add, float* out) {
  for (int i = 0; i < rows; ++i) {
    Vec<float> acc[2] = {};
    for (Index p = 0; p < words; ++p) {
      add_words(left + p * rows + i, panel + p * 2 * kLanes<float>, acc);
    }
    store_sums(acc, 2, add, out + i * 2 * kLanes<float>);
  }
}
template <int kRows>
void tile_taps_words(const TileTaps<float>& args) {
  for (int i = 0; i < args.rows; ++i) {
    Vec<float> acc[2] = {};
    const float* panel = args.panel;
    for (int t = 0; t < args.taps; ++t) {
      for (Index p = 0; p < args.k; ++p, panel += 2 * kLanes<float>) {
        add_words(args.rows_at[t * args.rows + i] + p, panel, acc);
      }
    }
    store_sums(acc, args.halves, args.add, args.out + i * args.out_stride);
  }
}

#else
// acc[i][h] += both products of word left(i) and panel vector h.
template <int kRows, int kHalves, class Left>
inline __attribute__((always_inline)) void add_words(const float* panel, Left left, Vec<float> (*acc)[kHalves]) {
  Words b[kHalves];
#pragma GCC unroll 2
  for (int h = 0; h < kHalves; ++h) {
    b[h] = load_words(panel + h * kLanes<float>);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    const Words factor = splat_word(left(i));
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      acc[i][h] = dot_words(acc[i][h], factor, b[h]);
    }
  }
}

template <int kRows, int kHalves>
inline __attribute__((always_inline)) void store_sums(const Vec<float> (*acc)[kHalves], bool add, float* out,
                                                      Index out_stride) {
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      float* const to = out + i * out_stride + h * kLanes<float>;
      store(to, add ? load(to) + acc[i][h] : acc[i][h]);
    }
  }
}

template <int kRows>
void tile_words(int rows, Index words, const float* left, const float* panel, bool add, float* out) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return tile_words<kRows - 1>(rows, words, left, panel, add, out);
    }
  }
  Vec<float> acc[kRows][2] = {};
  for (Index p = 0; p < words; ++p, left += kRows, panel += 2 * kLanes<float>) {
    add_words<kRows, 2>(panel, [&](int i) { return left + i; }, acc);
  }
  store_sums<kRows, 2>(acc, add, out, 2 * kLanes<float>);
}

template <int kRows, int kHalves>
void tap_rows_words(const TileTaps<float>& args) {
  Vec<float> acc[kRows][kHalves] = {};
  const float* panel = args.panel;
  const float* const* rows_at = args.rows_at;
  for (int t = 0; t < args.taps; ++t, rows_at += kRows) {
    const float* x[kRows];
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      x[i] = rows_at[i];
    }
    for (Index p = 0; p < args.k; ++p, panel += 2 * kLanes<float>) {
      add_words<kRows, kHalves>(panel, [&](int i) { return x[i] + p; }, acc);
    }
  }
  store_sums<kRows, kHalves>(acc, args.add, args.out, args.out_stride);
}
template <int kRows>
void tile_taps_words(const TileTaps<float>& args) {
  if constexpr (kRows > 1) {
    if (args.rows < kRows) {
      return tile_taps_words<kRows - 1>(args);
    }
  }
  return args.halves == 1 ? tap_rows_words<kRows, 1>(args) : tap_rows_words<kRows, 2>(args);
}
#endif
