// Sums of a convolution where of four neighbouring positions one alone is wanted, another one for each column, as below
// a pool of 2 x 2. A list has what is not zero in one of four pixels, their values side by side; lanes are columns, and
// each takes the pixel of its own position: a shuffle and a multiply-add in the place of four multiply-adds. For
// processors that shuffle by a vector, and single precision: four pixels are 16 bytes.
#if defined(__AVX2__)
#if defined(__AVX512F__)
inline __attribute__((always_inline)) Vec<float> of_four(const float* four, Mask<float> choice) {
  return reinterpret_cast<Vec<float>>(_mm512_maskz_permutevar_ps(
      0xffff, _mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(four)), reinterpret_cast<__m512i>(choice)));
}
#else
inline __attribute__((always_inline)) Vec<float> of_four(const float* four, Mask<float> choice) {
  return reinterpret_cast<Vec<float>>(_mm256_permutevar_ps(_mm256_broadcast_ps(reinterpret_cast<const __m128*>(four)),
                                                           reinterpret_cast<__m256i>(choice)));
}
#endif

// NaN is not zero, -0 is; of words (word_lists.inl) neither half.
template <bool kWords>
inline __attribute__((always_inline)) Index store_four(__m128 four, Index step, float* values, std::uint16_t* steps) {
  _mm_storeu_ps(values, four);
  *steps = static_cast<std::uint16_t>(step);
  const __m128i magnitudes = _mm_set1_epi32(kWords ? 0x7fff7fff : 0x7fffffff);
  return 1 - _mm_testz_si128(_mm_castps_si128(four), magnitudes);
}

template <bool kWords>
Index compress_quad(Index k, const float* const* x, float* values, std::uint16_t* steps) {
  Index count = 0, p = 0;
  for (; p + 4 <= k; p += 4) {
    __m128 a = _mm_loadu_ps(x[0] + p), b = _mm_loadu_ps(x[1] + p), c = _mm_loadu_ps(x[2] + p),
           d = _mm_loadu_ps(x[3] + p);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    count += store_four<kWords>(a, p, values + 4 * count, steps + count);
    count += store_four<kWords>(b, p + 1, values + 4 * count, steps + count);
    count += store_four<kWords>(c, p + 2, values + 4 * count, steps + count);
    count += store_four<kWords>(d, p + 3, values + 4 * count, steps + count);
  }
  for (; p < k; ++p) {
    count += store_four<kWords>(_mm_setr_ps(x[0][p], x[1][p], x[2][p], x[3][p]), p, values + 4 * count, steps + count);
  }
  return count;
}

template <int kPanels, class How>
void list_quads_of(const ListQuads& args) {
  constexpr int lanes = kLanes<float>;
  const float* panel[kPanels];
  for (int p = 0; p < kPanels; ++p) {
    panel[p] = args.panel[p];
  }
  for (Index i = 0; i < args.rows; ++i) {
    const Index* const begin = args.begins + args.list_of[i];
    const float* value = args.values + 4 * begin[0];
    const float* const end = args.values + 4 * begin[1];
    const std::uint16_t* step = args.steps + begin[0];
    const std::int32_t* const chosen = args.choice + i * args.choice_stride;
    Mask<float> choice[2 * kPanels];
    Vec<float> acc[2 * kPanels] = {};
#pragma GCC unroll 6
    for (int j = 0; j < 2 * kPanels; ++j) {
      __builtin_memcpy(&choice[j], chosen + j * lanes, sizeof choice[j]);
    }
    for (; value < end; value += 4, ++step) {
      const Index at = Index{*step} * (2 * lanes);
#pragma GCC unroll 3
      for (int p = 0; p < kPanels; ++p) {
        How::add(acc[2 * p], of_four(value, choice[2 * p]), load(panel[p] + at));
        How::add(acc[2 * p + 1], of_four(value, choice[2 * p + 1]), load(panel[p] + at + lanes));
      }
    }
#pragma GCC unroll 6
    for (int j = 0; j < 2 * kPanels; ++j) {
      float* const target = args.out[j / 2] + i * args.out_stride + j % 2 * lanes;
      store(target, args.add ? load(target) + acc[j] : acc[j]);
    }
  }
}

template <class How = Numbers>
void list_quads(const ListQuads& args) {
  if constexpr (How::kPanelByPanel) {
    for (int p = 0; p < args.panels; ++p) {
      ListQuads one = args;
      one.panel += p;
      one.out += p;
      one.choice += p * 2 * kLanes<float>;
      list_quads_of<1, How>(one);
    }
  } else {
    switch (args.panels) {
      case 1:
        return list_quads_of<1, How>(args);
      case 2:
        return list_quads_of<2, How>(args);
      default:
        return list_quads_of<3, How>(args);
    }
  }
}

inline bool choose_of_four(Index n, const float* const* r, std::int32_t* choice, float* sum) {
  Mask<float> more = {};
  for (Index j = 0; j < n; j += kLanes<float>) {
    Mask<float> count = {}, at = {};
    Vec<float> all = {};
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      const Vec<float> v = r[q] ? load_n(r[q] + j, n - j) : Vec<float>{};
      const Mask<float> there = v != Vec<float>{};
      count -= there;
      at += there & q;
      all += v;
    }
    more |= count > 1;
    __builtin_memcpy(choice + j, &at, sizeof at);
    store(sum + j, all);
  }
  return !any_lane<float>(more);
}

inline void place_of_four(Index n, const std::int32_t* choice, const float* s, float* const* to) {
  for (Index j = 0; j < n; j += kLanes<float>) {
    Mask<float> at;
    __builtin_memcpy(&at, choice + j, sizeof at);
    const Vec<float> v = load(s + j);
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      if (to[q]) {
        store_n(to[q] + j, at == q ? v : Vec<float>{}, n - j);
      }
    }
  }
}

#endif
