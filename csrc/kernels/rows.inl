// Whole weight rows, for few samples: the products with a row while it is in cache. W is how a weight is stored: T
// itself, or bfloat16 (half the bytes).

template <class T>
inline Vec<T> ones_part(Index n) {
  Vec<T> v = {};
  for (Index i = 0; i < n; ++i) {
    v[i] = T(1);
  }
  return v;
}

// Rows that go together: as many streams out of memory, each of which a hardware prefetcher follows. Zen 4, AVX-512,
// rows of 16 kB: 26.4 GB/s with 8, 23.4 with 4.
constexpr int kRowsAtOnce = 8;
// Sums of a row that do not wait for each other.
template <int kRows>
constexpr int kSumsOfRow = kRows > 4 ? 1 : 2;

// How far ahead lines of rows out of memory are asked for, in bytes; measured with AVX-512 on rows of 100 and 16 kB:
// 27.6 and 26.4 GB/s with 1 kB, 26.0 and 22.9 without. Rows in bfloat16: 20.4 GB/s with 2 kB, 17.5 with 1 kB, 17.2
// without. Rows that were read before are not: they would wait behind lines that nobody reads.
template <class W>
constexpr Index kBytesAhead = sizeof(W) == sizeof(Bfloat16) ? 2048 : 1024;
// The lines of two vectors of numbers of each row; ahead: 0 for rows that were read before.
template <class W, int kRows>
inline __attribute__((always_inline)) void fetch_rows(const W* const* w, Index i, Index ahead) {
  constexpr Index bytes = 2 * kLanes<float> * static_cast<Index>(sizeof(W) > 4 ? 4 : sizeof(W)), line = 64;
  if (ahead == 0) {
    return;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const char* const at = reinterpret_cast<const char*>(w[r] + i) + ahead;
#pragma GCC unroll 2
    for (Index b = 0; b < bytes; b += line) {
      __builtin_prefetch(at + b, 0, 2);
    }
  }
}

// Two vectors of weights as they are taken out of memory. Of those in bfloat16 a word's lower half goes to the first,
// its upper half to the second, which is half the work of widening them in order; what they meet is split and joined.
template <class T>
inline __attribute__((always_inline)) void load_two(const T* w, Vec<T>* two) {
  two[0] = load(w);
  two[1] = load(w + kLanes<T>);
}
inline __attribute__((always_inline)) void load_two(const Bfloat16* w, Vec<float>* two) {
  Words words;
  __builtin_memcpy(&words, w, sizeof words);
  two[0] = reinterpret_cast<Vec<float>>(words << 16);
  two[1] = reinterpret_cast<Vec<float>>(words & 0xffff0000U);
}
template <class T, class W, int... kLane>
inline __attribute__((always_inline)) void split(Vec<T>* two, Lanes<kLane...>) {
  if constexpr (sizeof(W) != sizeof(T)) {
    const Vec<T> first = shuffle<T, (2 * kLane)...>(two[0], two[1]);
    two[1] = shuffle<T, (2 * kLane + 1)...>(two[0], two[1]);
    two[0] = first;
  }
}
template <class T, class W, int... kLane>
inline __attribute__((always_inline)) void join(Vec<T>* two, Lanes<kLane...>) {
  if constexpr (sizeof(W) != sizeof(T)) {
    constexpr int lanes = kLanes<T>;
    const Vec<T> first = shuffle<T, (kLane / 2 + kLane % 2 * lanes)...>(two[0], two[1]);
    two[1] = shuffle<T, (lanes / 2 + kLane / 2 + kLane % 2 * lanes)...>(two[0], two[1]);
    two[0] = first;
  }
}
template <class T>
using AllLanes = typename MakeLanes<kLanes<T>>::type;

template <Read kRead, class T, class W, int kRows>
inline void dot_rows(const W* const* w, Index k, Vec<T> vp, Vec<T> vn, const T* x, T* z, Index ahead) {
  constexpr int lanes = kLanes<T>, sums = kSumsOfRow<kRows>;
  Vec<T> acc[kRows][sums] = {};
  Index i = 0;
  for (; i + 2 * lanes <= k; i += 2 * lanes) {
    Vec<T> at[2] = {splat(T(1)), splat(T(1))};
    if (x) {
      load_two(x + i, at);
      split<T, W>(at, AllLanes<T>{});
    }
    fetch_rows<W, kRows>(w, i, ahead);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      Vec<T> two[2];
      load_two(w[r] + i, two);
      acc[r][0] += map_weight<kRead, T>(two[0], vp, vn) * at[0];
      acc[r][sums - 1] += map_weight<kRead, T>(two[1], vp, vn) * at[1];
    }
  }
  for (; i < k; i += lanes) {
    const Index n = k - i < lanes ? k - i : lanes;
    const Vec<T> x0 = x ? load_part(x + i, n) : ones_part<T>(n);  // 0 beyond the row's end
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      acc[r][0] += map_weight<kRead, T>(load_weight_part(w[r] + i, n), vp, vn) * x0;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    z[r] += sum_lanes<T>(sums > 1 ? acc[r][0] + acc[r][sums - 1] : acc[r][0]);
  }
}

template <Read kRead, class T, class W, int kRows>
inline void axpy_rows(const W* const* w, Index k, Vec<T> vp, Vec<T> vn, const T* s, T* c, Index ahead) {
  constexpr int lanes = kLanes<T>;
  Vec<T> factor[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    factor[r] = splat(s[r]);
  }
  Index i = 0;
  for (; i + 2 * lanes <= k; i += 2 * lanes) {
    Vec<T> sums[2];
    load_two(c + i, sums);
    split<T, W>(sums, AllLanes<T>{});
    fetch_rows<W, kRows>(w, i, ahead);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      Vec<T> two[2];
      load_two(w[r] + i, two);
      sums[0] += map_weight<kRead, T>(two[0], vp, vn) * factor[r];
      sums[1] += map_weight<kRead, T>(two[1], vp, vn) * factor[r];
    }
    join<T, W>(sums, AllLanes<T>{});
    store(c + i, sums[0]);
    store(c + i + lanes, sums[1]);
  }
  for (; i < k; i += lanes) {
    const Index n = k - i < lanes ? k - i : lanes;
    Vec<T> v = load_part(c + i, n);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      v += map_weight<kRead, T>(load_weight_part(w[r] + i, n), vp, vn) * factor[r];
    }
    store_part(c + i, v, n);
  }
}

// body(number of rows as a constant, first row)
template <class Body>
inline void rows_together(int rows, Body body) {
  int r = 0;
  for (; r + kRowsAtOnce <= rows; r += kRowsAtOnce) {
    body(Height<kRowsAtOnce>{}, r);
  }
  if (r + 4 <= rows) {
    body(Height<4>{}, r);
    r += 4;
  }
  for (; r < rows; ++r) {
    body(Height<1>{}, r);
  }
}

template <class T, class W>
void rows_dot(int rows, const W* const* w, Index k, Weights<T> map, const T* x, T* z, bool cold) {
  const Vec<T> vp = splat(map.p), vn = splat(map.n);
  const Index ahead = cold ? kBytesAhead<W> : 0;
  with_read(map.read, [&](auto read) {
    rows_together(rows, [&](auto height, int r) {
      dot_rows<decltype(read)::value, T, W, decltype(height)::value>(w + r, k, vp, vn, x, z + r, ahead);
    });
  });
}

template <class T, class W>
void rows_axpy(int rows, const W* const* w, Index k, Weights<T> map, const T* s, T* c, bool cold) {
  const Vec<T> vp = splat(map.p), vn = splat(map.n);
  const Index ahead = cold ? kBytesAhead<W> : 0;
  with_read(map.read, [&](auto read) {
    rows_together(rows, [&](auto height, int r) {
      axpy_rows<decltype(read)::value, T, W, decltype(height)::value>(w + r, k, vp, vn, s + r, c, ahead);
    });
  });
}

// A row's squares are summed, and added with its share, by few operations on weights in bfloat16: half of the memory's
// time. So the next eight rows come out of memory while eight are added.
#if defined(__AVX512F__)
inline void add_squares(const Bfloat16* const* w, const Bfloat16* const* next, Index k, const float* s, float* c,
                        float* z) {
  constexpr int lanes = kLanes<float>, rows = kSquaredRows;
  Vec<float> factor[rows], acc[rows] = {};
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
    factor[r] = splat(s[r]);
  }
  Index i = 0;
  for (; i + 2 * lanes <= k; i += 2 * lanes) {
    Vec<float> sums[2];
    load_two(c + i, sums);
    split<float, Bfloat16>(sums, AllLanes<float>{});
    fetch_rows<Bfloat16, rows>(next, i, kBytesAhead<Bfloat16>);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      Vec<float> two[2];
      load_two(w[r] + i, two);
      sums[0] += two[0] * two[0] * factor[r];
      sums[1] += two[1] * two[1] * factor[r];
      load_two(next[r] + i, two);
      acc[r] += two[0] * two[0];
      acc[r] += two[1] * two[1];
    }
    join<float, Bfloat16>(sums, AllLanes<float>{});
    store(c + i, sums[0]);
    store(c + i + lanes, sums[1]);
  }
  for (; i < k; i += lanes) {
    const Index n = k - i < lanes ? k - i : lanes;
    Vec<float> v = load_part(c + i, n);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const Vec<float> now = load_weight_part(w[r] + i, n), then = load_weight_part(next[r] + i, n);
      v += now * now * factor[r];
      acc[r] += then * then;
    }
    store_part(c + i, v, n);
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
    z[r] += sum_lanes<float>(acc[r]);
  }
}
#else
constexpr decltype(Bfloat16Table::add_squares) add_squares = nullptr;
#endif
