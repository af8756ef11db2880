// Products whose left operand is mostly zeros: a row is a list of its entries that are not, and each costs a broadcast
// and two multiply-adds a panel, with the panels' rows read from the L1 cache. No threshold: what is left out is zero.

// v[0], u[0], v[1], u[1], ...
#if defined(__AVX512F__)
inline __attribute__((always_inline)) void store_by_turns(__m512 v, __m512 u, float* to) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  _mm512_storeu_ps(to, _mm512_permutex2var_ps(v, low, u));
  _mm512_storeu_ps(to + 16, _mm512_permutex2var_ps(v, _mm512_add_epi32(low, _mm512_set1_epi32(8)), u));
}
inline __attribute__((always_inline)) void store_by_turns(__m512d v, __m512d u, double* to) {
  const __m512i low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
  _mm512_storeu_pd(to, _mm512_permutex2var_pd(v, low, u));
  _mm512_storeu_pd(to + 8, _mm512_permutex2var_pd(v, _mm512_add_epi64(low, _mm512_set1_epi64(4)), u));
}
#elif defined(__AVX2__)
inline __attribute__((always_inline)) void store_by_turns(__m256 v, __m256 u, float* to) {
  const __m256 low = _mm256_unpacklo_ps(v, u), high = _mm256_unpackhi_ps(v, u);  // of each half
  _mm256_storeu_ps(to, _mm256_permute2f128_ps(low, high, 0x20));
  _mm256_storeu_ps(to + 8, _mm256_permute2f128_ps(low, high, 0x31));
}
inline __attribute__((always_inline)) void store_by_turns(__m256d v, __m256d u, double* to) {
  const __m256d low = _mm256_unpacklo_pd(v, u), high = _mm256_unpackhi_pd(v, u);
  _mm256_storeu_pd(to, _mm256_permute2f128_pd(low, high, 0x20));
  _mm256_storeu_pd(to + 4, _mm256_permute2f128_pd(low, high, 0x31));
}
#endif

// Puts the lanes of v that are not zero side by side, and with each its step; a whole vector is written. NaN != 0.
#if defined(__AVX512F__)
inline __attribute__((always_inline)) Index store_nonzeros(Vec<float> v, Index first_step, float* values,
                                                           std::uint16_t* steps) {
  const __m512 x = reinterpret_cast<__m512>(v);
  const __mmask16 kept = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NEQ_UQ);
  const __m512i at = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first_step)),
                                      _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  // Compressed in a register, then stored: the form that stores to memory takes six times as long on Zen 4.
  _mm512_storeu_ps(values, _mm512_maskz_compress_ps(kept, x));
  const __m512i moved = _mm512_maskz_compress_epi32(kept, at);
  const __m256i narrow = _mm512_maskz_cvtepi32_epi16(0xffff, moved);  // unmasked, GCC 12 warns of its own header
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(steps), narrow);
  return __builtin_popcount(kept);
}
inline __attribute__((always_inline)) Index store_nonzeros(Vec<double> v, Index first_step, double* values,
                                                           std::uint16_t* steps) {
  const __m512d x = reinterpret_cast<__m512d>(v);
  const __mmask8 kept = _mm512_cmp_pd_mask(x, _mm512_setzero_pd(), _CMP_NEQ_UQ);
  const __m256i at =
      _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(first_step)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  _mm512_storeu_pd(values, _mm512_maskz_compress_pd(kept, x));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(steps), _mm256_cvtepi32_epi16(_mm256_maskz_compress_epi32(kept, at)));
  return __builtin_popcount(kept);
}
inline __attribute__((always_inline)) Index store_pair(Vec<float> v, Vec<float> u, Index first_step, float* values,
                                                       std::uint16_t* steps) {
  const __m512 x = reinterpret_cast<__m512>(v), y = reinterpret_cast<__m512>(u), zero = _mm512_setzero_ps();
  const __mmask16 kept =
      static_cast<__mmask16>(_mm512_cmp_ps_mask(x, zero, _CMP_NEQ_UQ) | _mm512_cmp_ps_mask(y, zero, _CMP_NEQ_UQ));
  const __m512i at = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first_step)),
                                      _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  store_by_turns(_mm512_maskz_compress_ps(kept, x), _mm512_maskz_compress_ps(kept, y), values);
  const __m256i narrow = _mm512_maskz_cvtepi32_epi16(0xffff, _mm512_maskz_compress_epi32(kept, at));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(steps), narrow);
  return __builtin_popcount(kept);
}
inline __attribute__((always_inline)) Index store_pair(Vec<double> v, Vec<double> u, Index first_step, double* values,
                                                       std::uint16_t* steps) {
  const __m512d x = reinterpret_cast<__m512d>(v), y = reinterpret_cast<__m512d>(u), zero = _mm512_setzero_pd();
  const __mmask8 kept =
      static_cast<__mmask8>(_mm512_cmp_pd_mask(x, zero, _CMP_NEQ_UQ) | _mm512_cmp_pd_mask(y, zero, _CMP_NEQ_UQ));
  const __m256i at =
      _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(first_step)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  store_by_turns(_mm512_maskz_compress_pd(kept, x), _mm512_maskz_compress_pd(kept, y), values);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(steps), _mm256_cvtepi32_epi16(_mm256_maskz_compress_epi32(kept, at)));
  return __builtin_popcount(kept);
}
#elif defined(__AVX2__)
// For each mask of eight lanes the numbers of those that are set, then zeros.
struct KeptLanes {
  std::uint8_t of[256][8];
  constexpr KeptLanes() : of{} {
    for (int mask = 0; mask < 256; ++mask) {
      int count = 0;
      for (int lane = 0; lane < 8; ++lane) {
        if ((mask >> lane & 1) != 0) {
          of[mask][count++] = static_cast<std::uint8_t>(lane);
        }
      }
    }
  }
};
constexpr KeptLanes kKeptLanes;
inline __attribute__((always_inline)) __m128i kept_lanes(int mask) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kKeptLanes.of[mask]));
}
inline __attribute__((always_inline)) __m128i steps_of(__m128i lanes, Index first_step) {
  return _mm_add_epi16(_mm_cvtepu8_epi16(lanes), _mm_set1_epi16(static_cast<short>(first_step)));
}
inline __attribute__((always_inline)) int nonzero_mask(Vec<float> v) {
  return _mm256_movemask_ps(_mm256_cmp_ps(reinterpret_cast<__m256>(v), _mm256_setzero_ps(), _CMP_NEQ_UQ));
}
inline __attribute__((always_inline)) int nonzero_mask(Vec<double> v) {
  return _mm256_movemask_pd(_mm256_cmp_pd(reinterpret_cast<__m256d>(v), _mm256_setzero_pd(), _CMP_NEQ_UQ));
}
inline __attribute__((always_inline)) __m256 in_order(Vec<float> v, __m128i lanes) {
  return _mm256_permutevar8x32_ps(reinterpret_cast<__m256>(v), _mm256_cvtepu8_epi32(lanes));
}
inline __attribute__((always_inline)) __m256d in_order(Vec<double> v, __m128i lanes) {
  const __m256i even = _mm256_slli_epi64(_mm256_cvtepu8_epi64(lanes), 1);  // a lane is two of 32 bits
  const __m256i halves = _mm256_or_si256(even, _mm256_slli_epi64(_mm256_add_epi64(even, _mm256_set1_epi64x(1)), 32));
  return _mm256_castps_pd(_mm256_permutevar8x32_ps(_mm256_castpd_ps(reinterpret_cast<__m256d>(v)), halves));
}
inline __attribute__((always_inline)) void store_steps(__m128i all, float, std::uint16_t* steps) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(steps), all);
}
inline __attribute__((always_inline)) void store_steps(__m128i all, double, std::uint16_t* steps) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(steps), all);
}
template <class V, class T>
inline __attribute__((always_inline)) Index store_nonzeros(V v, Index first_step, T* values, std::uint16_t* steps) {
  const int kept = nonzero_mask(v);
  const __m128i lanes = kept_lanes(kept);
  store(values, reinterpret_cast<V>(in_order(v, lanes)));
  store_steps(steps_of(lanes, first_step), T{}, steps);
  return __builtin_popcount(static_cast<unsigned>(kept));
}
template <class V, class T>
inline __attribute__((always_inline)) Index store_pair(V v, V u, Index first_step, T* values, std::uint16_t* steps) {
  const int kept = nonzero_mask(v) | nonzero_mask(u);
  const __m128i lanes = kept_lanes(kept);
  store_by_turns(in_order(v, lanes), in_order(u, lanes), values);
  store_steps(steps_of(lanes, first_step), T{}, steps);
  return __builtin_popcount(static_cast<unsigned>(kept));
}
#else
template <class T>
inline Index store_nonzeros(Vec<T> v, Index first_step, T* values, std::uint16_t* steps) {
  Index count = 0;
  for (int l = 0; l < kLanes<T>; ++l) {
    values[count] = v[l];
    steps[count] = static_cast<std::uint16_t>(first_step + l);
    count += v[l] != 0 ? 1 : 0;
  }
  return count;
}
template <class V, class T>
inline Index store_pair(V v, V u, Index first_step, T* values, std::uint16_t* steps) {
  Index count = 0;
  for (int l = 0; l < kLanes<T>; ++l) {
    values[2 * count] = v[l];
    values[2 * count + 1] = u[l];
    steps[count] = static_cast<std::uint16_t>(first_step + l);
    count += v[l] != 0 || u[l] != 0 ? 1 : 0;
  }
  return count;
}
#endif

template <class T>
Index nonzeros(Index k, const T* x, int part) {
  Mask<T> count = {};  // -1 for each
  Index p = 0;
  for (; p + kLanes<T> <= k; p += kLanes<T>) {
    count += take_part<T>(load(x + p), part) != Vec<T>{};
  }
  if (p < k) {
    count += take_part<T>(load_part(x + p, k - p), part) != Vec<T>{};
  }
  Index all = 0;
  for (int l = 0; l < kLanes<T>; ++l) {
    all -= static_cast<Index>(count[l]);
  }
  return all;
}

template <class T>
Index compress(Index k, const T* x, int part, Index first_step, T* values, std::uint16_t* steps) {
  Index count = 0;
  for (Index p = 0; p < k; p += kLanes<T>) {
    const Vec<T> v = take_part<T>(load_n(x + p, k - p), part);
    count += store_nonzeros(v, first_step + p, values + count, steps + count);
  }
  return count;
}

// How an entry's value meets a row of a panel: as a number; word_lists.inl has words of two.
struct Numbers {
  static constexpr bool kPanelByPanel = false;
  template <class T>
  static inline __attribute__((always_inline)) Vec<T> spread(const T* value) {
    return splat(*value);
  }
  template <class V>
  static inline __attribute__((always_inline)) void add(V& acc, V value, V weights) {
    acc += value * weights;
  }
};

// Each sum is one chain in the order of its list, however many panels run side by side: the same bits.
template <class T, int kPanels, class How>
void list_rows_of(const ListRows<T>& args) {
  constexpr int lanes = kLanes<T>;
  const T* panel[kPanels];
  T* out[kPanels];
  for (int p = 0; p < kPanels; ++p) {
    panel[p] = args.panel[p];
    out[p] = args.out[p];
  }
  for (Index i = 0; i < args.rows; ++i) {
    const Index list = args.list_of ? args.list_of[i] : args.first_list + i;
    const T* value = args.values + args.begins[list];
    const T* const end = args.values + args.begins[list + 1];
    const std::uint16_t* step = args.steps + args.begins[list];
    if (args.add) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {  // on its way while the row is computed
        __builtin_prefetch(out[p] + i * args.out_stride, 1);
        __builtin_prefetch(out[p] + i * args.out_stride + lanes, 1);
      }
    }
    Vec<T> acc[kPanels][2] = {};
    for (; value < end; ++value, ++step) {
      const Vec<T> v = How::spread(value);
      const Index at = Index{*step} * (2 * lanes);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        How::add(acc[p][0], v, load(panel[p] + at));
        How::add(acc[p][1], v, load(panel[p] + at + lanes));
      }
    }
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      T* const row = out[p] + i * args.out_stride;
      store(row, args.add ? load(row) + acc[p][0] : acc[p][0]);
      store(row + lanes, args.add ? load(row + lanes) + acc[p][1] : acc[p][1]);
    }
  }
}

// A kernel of one panel, for each of them.
template <class Args, class Kernel>
inline __attribute__((always_inline)) void each_panel(const Args& args, Kernel kernel) {
  for (int p = 0; p < args.panels; ++p) {
    Args one = args;
    one.panel += p;
    one.out += p;
    kernel(one);
  }
}

template <class T, class How = Numbers>
void list_rows(const ListRows<T>& args) {
  if constexpr (How::kPanelByPanel) {
    return each_panel(args, list_rows_of<T, 1, How>);
  } else {
    switch (args.panels) {
      case 1:
        return list_rows_of<T, 1, How>(args);
      case 2:
        return list_rows_of<T, 2, How>(args);
      case 3:
        return list_rows_of<T, 3, How>(args);
      default:
        return list_rows_of<T, 4, How>(args);
    }
  }
}

template <class T>
Index compress_pair(Index k, const T* x, const T* y, T* values, std::uint16_t* steps) {
  Index count = 0;
  for (Index p = 0; p < k; p += kLanes<T>) {
    const Vec<T> v = load_n(x + p, k - p), u = load_n(y + p, k - p);
    count += store_pair(v, u, p, values + 2 * count, steps + count);
  }
  return count;
}

// Two vectors stay in registers, loaded one after the other. The compiler would read each anew for each row, and the
// same half of two panels side by side: two loads from one bank of the L1 cache wait for each other (Zen 3: a fifth).
template <class V>
inline __attribute__((always_inline)) void hold(V& a, V& b) {
#if defined(__AVX512F__)
  asm volatile("" : "+v"(a), "+v"(b));
#elif defined(__x86_64__) || defined(_M_X64)
  asm volatile("" : "+x"(a), "+x"(b));
#else
  (void)a;
  (void)b;
#endif
}

// A weight that was read serves two rows, and so does what it costs to begin and end a list. The lists lie one behind
// the other and the values of both rows side by side: with AVX2 that takes 10 to 30 % less time than rows apart, of
// which each list has a place for all steps (VGG16, 46 to 16 % of entries left), and nothing need be fetched ahead.
template <class T, int kPanels, class How>
void list_pairs_of(const Lists<T>& args) {
  constexpr int lanes = kLanes<T>;
  const T* panel[kPanels];
  T* out[kPanels];
  for (int p = 0; p < kPanels; ++p) {
    panel[p] = args.panel[p];
    out[p] = args.out[p];
  }
  for (Index i = 0; i < args.rows; ++i) {
    const Index* const begin = args.begins + args.list_of[i];
    const T* value = args.values + 2 * begin[0];
    const T* const end = args.values + 2 * begin[1];
    const std::uint16_t* step = args.steps + begin[0];
    Vec<T> acc[kPanels][4] = {};
    for (; value < end; value += 2, ++step) {
      const Vec<T> v = How::spread(value), u = How::spread(value + 1);
      const Index at = Index{*step} * (2 * lanes);
#pragma GCC unroll 3
      for (int p = 0; p < kPanels; ++p) {
        Vec<T> w0 = load(panel[p] + at), w1 = load(panel[p] + at + lanes);
        hold(w0, w1);
        How::add(acc[p][0], v, w0);
        How::add(acc[p][1], v, w1);
        How::add(acc[p][2], u, w0);
        How::add(acc[p][3], u, w1);
      }
    }
#pragma GCC unroll 3
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        T* const target = out[p] + (2 * i + j / 2) * args.out_stride + j % 2 * lanes;
        store(target, args.add ? load(target) + acc[p][j] : acc[p][j]);
      }
    }
  }
}

template <class T, class How = Numbers>
void list_pairs(const Lists<T>& args) {
  if constexpr (How::kPanelByPanel) {
    return each_panel(args, list_pairs_of<T, 1, How>);
  } else {
    switch (args.panels) {
      case 1:
        return list_pairs_of<T, 1, How>(args);
      case 2:
        return list_pairs_of<T, 2, How>(args);
      default:
        return list_pairs_of<T, 3, How>(args);
    }
  }
}
