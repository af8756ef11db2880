// Two products by lists at once, of two left operands with the positive and the negative weights: the sign of a weight
// picks the value that it meets, one blend and one multiply-add in the place of two multiply-adds and two reads.
#if defined(__AVX512F__)
// Once for all rows: on Zen 4 a mask made of a vector takes a multiply-add's place, one that is read half of it.
inline void read_signs(Index steps, int panels, const float* const* panel, std::uint16_t* signs) {
  for (Index i = 0; i < steps; ++i) {
    for (int p = 0; p < panels; ++p, signs += 2) {
      const float* const w = panel[p] + i * 2 * kLanes<float>;
      signs[0] = static_cast<std::uint16_t>(_mm512_movepi32_mask(_mm512_loadu_si512(w)));
      signs[1] = static_cast<std::uint16_t>(_mm512_movepi32_mask(_mm512_loadu_si512(w + kLanes<float>)));
    }
  }
}

inline __attribute__((always_inline)) Vec<float> by_sign(std::uint16_t below, const Vec<float>* met) {
  return reinterpret_cast<Vec<float>>(
      _mm512_mask_blend_ps(below, reinterpret_cast<__m512>(met[0]), reinterpret_cast<__m512>(met[1])));
}

inline Index compress_signs(Index k, const float* const* x, float* values, std::uint16_t* steps) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  Index count = 0;
  for (Index p = 0; p < k; p += kLanes<float>) {
    __m512 v[4];
    __mmask16 kept = 0;
    for (int i = 0; i < 4; ++i) {
      v[i] = reinterpret_cast<__m512>(load_n(x[i] + p, k - p));
      kept = static_cast<__mmask16>(kept | _mm512_cmp_ps_mask(v[i], _mm512_setzero_ps(), _CMP_NEQ_UQ));
    }
    for (__m512& row : v) {
      row = _mm512_maskz_compress_ps(kept, row);
    }
    for (int half = 0; half < 2; ++half) {  // a pair of values is as wide as a double
      const __m512i lanes = half == 0 ? low : high;
      store_by_turns(_mm512_castps_pd(_mm512_permutex2var_ps(v[0], lanes, v[1])),
                     _mm512_castps_pd(_mm512_permutex2var_ps(v[2], lanes, v[3])),
                     reinterpret_cast<double*>(values + 4 * count + 32 * half));
    }
    const __m512i at = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(p)),
                                        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(steps + count),
                        _mm512_maskz_cvtepi32_epi16(0xffff, _mm512_maskz_compress_epi32(kept, at)));
    count += __builtin_popcount(kept);
  }
  return count;
}

template <int kTogether, int kPanels>
void list_signs_of(const ListSigns& args) {
  constexpr int lanes = kLanes<float>, values = 2 * kTogether;
  const float* panel[kPanels];
  float* out[kPanels];
  for (int p = 0; p < kPanels; ++p) {
    panel[p] = args.panel[p];
    out[p] = args.out[p];
  }
  for (Index i = 0; i < args.rows; ++i) {
    const Index* const begin = args.begins + args.list_of[i];
    const float* value = args.values + values * begin[0];
    const float* const end = args.values + values * begin[1];
    const std::uint16_t* step = args.steps + begin[0];
    Vec<float> acc[kPanels][values] = {};
    for (; value < end; value += values, ++step) {
      Vec<float> met[kTogether][2];
#pragma GCC unroll 2
      for (int r = 0; r < kTogether; ++r) {
        met[r][0] = splat(value[2 * r]);
        met[r][1] = splat(value[2 * r + 1]);
        hold(met[r][0], met[r][1]);  // or a masked broadcast would be read for each blend
      }
      const Index at = Index{*step} * (2 * lanes);
      const std::uint16_t* const sign = args.signs + Index{*step} * (2 * kPanels);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        Vec<float> w0 = load(panel[p] + at), w1 = load(panel[p] + at + lanes);
        if constexpr (kTogether == 2) {
          hold(w0, w1);
        }
#pragma GCC unroll 2
        for (int r = 0; r < kTogether; ++r) {
          acc[p][2 * r] += w0 * by_sign(sign[2 * p], met[r]);
          acc[p][2 * r + 1] += w1 * by_sign(sign[2 * p + 1], met[r]);
        }
      }
    }
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
      for (int j = 0; j < values; ++j) {
        float* const target = out[p] + (kTogether * i + j / 2) * args.out_stride + j % 2 * lanes;
        store(target, args.add ? load(target) + acc[p][j] : acc[p][j]);
      }
    }
  }
}

template <int kTogether, int kPanels = kSignPanels[kTogether - 1]>
void list_signs_beside(const ListSigns& args) {
  if constexpr (kPanels > 1) {
    if (args.panels < kPanels) {
      return list_signs_beside<kTogether, kPanels - 1>(args);
    }
  }
  list_signs_of<kTogether, kPanels>(args);
}

inline void list_signs(const ListSigns& args) {
  args.together == 2 ? list_signs_beside<2>(args) : list_signs_beside<1>(args);
}
#endif
