// Rows that are lists of what is not zero, over panels whose rows lie side by side (a group): a step's weights are one
// piece of memory. Lists have a multiple of four entries, zeros at the end; four values are read at once and spread by
// shuffles, since reading weights is what takes the time: Zen 4 reads one vector a cycle, and a broadcast is a read.

template <class T>
constexpr int kGroupPanels = PYLRP_VECTOR_BYTES == 64 ? 2 : 4;

// Four values, over and over (masked: of the other form GCC 12 warns in its own header).
#if defined(__AVX512F__)
inline __attribute__((always_inline)) Vec<float> load_four(const float* x) {
  return reinterpret_cast<Vec<float>>(_mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(x)));
}
inline __attribute__((always_inline)) Vec<double> load_four(const double* x) {
  return reinterpret_cast<Vec<double>>(_mm512_maskz_broadcast_f64x4(0xff, _mm256_loadu_pd(x)));
}
#elif defined(__AVX2__)
inline __attribute__((always_inline)) Vec<float> load_four(const float* x) {
  return reinterpret_cast<Vec<float>>(_mm256_broadcast_ps(reinterpret_cast<const __m128*>(x)));
}
inline __attribute__((always_inline)) Vec<double> load_four(const double* x) { return load(x); }
#endif

// One of four values in all lanes.
template <class T, int kNumber, int... kIndex>
inline __attribute__((always_inline)) Vec<T> spread(const Vec<T>& four, Lanes<kIndex...>) {
  return shuffle<T, (kIndex / 4 * 4 + kNumber)...>(four, four);
}
template <class T, int kVectors>
inline __attribute__((always_inline)) void add_entry(const Vec<T>& value, const T* weights, Vec<T>* acc) {
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    acc[v] += value * load(weights + v * kLanes<T>);
  }
}
template <class T, int kVectors>
inline __attribute__((always_inline)) void add_four(const T* values, const T* const* weights, Vec<T>* acc) {
#if defined(__AVX2__)
  using All = typename MakeLanes<kLanes<T>>::type;
  const Vec<T> four = load_four(values);
  add_entry<T, kVectors>(spread<T, 0>(four, All{}), weights[0], acc);
  add_entry<T, kVectors>(spread<T, 1>(four, All{}), weights[1], acc);
  add_entry<T, kVectors>(spread<T, 2>(four, All{}), weights[2], acc);
  add_entry<T, kVectors>(spread<T, 3>(four, All{}), weights[3], acc);
#else
  for (int e = 0; e < 4; ++e) {
    add_entry<T, kVectors>(splat(values[e]), weights[e], acc);
  }
#endif
}

// Each sum is one chain in the order of its list, however many panels a group has: the same bits.
template <class T, int kPanels>
void group_rows_of(const GroupRows<T>& args) {
  constexpr int lanes = kLanes<T>, vectors = 2 * kPanels;
  constexpr Index width = 2 * lanes * kGroupPanels<T>;
  const GroupRows<T> of = args;  // a copy, that no store can change
  T* out[kPanels];
  for (int p = 0; p < kPanels; ++p) {
    out[p] = args.out[p];
  }
  for (Index i = 0; i < of.rows; ++i) {
    if (of.add) {
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) {  // on its way while the row is computed
        __builtin_prefetch(out[v / 2] + (2 * i + v % 2) * lanes, 1);
      }
    }
    const T* value = of.values + of.begins[i];
    const T* const end = of.values + of.begins[i + 1];
    const std::uint16_t* step = of.steps + of.begins[i];
    Vec<T> acc[vectors] = {};
    for (; value < end; value += 4, step += 4) {
      std::uint64_t four;
      __builtin_memcpy(&four, step, sizeof(four));
      const T* const weights[4] = {of.group + static_cast<Index>(four & 0xffff) * width,
                                   of.group + static_cast<Index>(four >> 16 & 0xffff) * width,
                                   of.group + static_cast<Index>(four >> 32 & 0xffff) * width,
                                   of.group + static_cast<Index>(four >> 48) * width};
      add_four<T, vectors>(value, weights, acc);
    }
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      T* const to = out[v / 2] + (2 * i + v % 2) * lanes;
      store(to, of.add ? load(to) + acc[v] : acc[v]);
    }
  }
}

// A group that is not whole goes panel by panel.
template <class T>
void group_rows(const GroupRows<T>& args) {
  if (args.panels == kGroupPanels<T>) {
    return group_rows_of<T, kGroupPanels<T>>(args);
  }
  for (int p = 0; p < args.panels; ++p) {
    GroupRows<T> one = args;
    one.group += p * 2 * kLanes<T>;
    one.out += p;
    group_rows_of<T, 1>(one);
  }
}
