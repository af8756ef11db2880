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

// Rows that go together: as many streams out of memory, each of which a hardware prefetcher follows.
constexpr int kRowsAtOnce = 4;

// How far ahead lines of rows out of memory are asked for, in bytes; measured with AVX2 on rows of 100 and 16 kB: 0.74
// of the read bandwidth with 1 kB, 0.65 without. Rows in bfloat16, AVX-512: 20.4 GB/s with 2 kB, 17.5 with 1 kB, 17.2
// without.
template <class W>
constexpr Index kBytesAhead = sizeof(W) == sizeof(Bfloat16) ? 2048 : 1024;
// The lines of two vectors of numbers.
template <class W>
inline __attribute__((always_inline)) void fetch_ahead(const W* w) {
  constexpr Index bytes = 2 * kLanes<float> * static_cast<Index>(sizeof(W) > 4 ? 4 : sizeof(W)), line = 64;
  const char* const at = reinterpret_cast<const char*>(w) + kBytesAhead<W>;
#pragma GCC unroll 2
  for (Index b = 0; b < bytes; b += line) {
    __builtin_prefetch(at + b, 0, 2);
  }
}

template <Read kRead, class T, class W, int kRows>
inline void dot_rows(const W* const* w, Index k, Vec<T> vp, Vec<T> vn, const T* x, T* z) {
  constexpr int lanes = kLanes<T>;
  Vec<T> acc[kRows][2] = {};
  Index i = 0;
  for (; i + 2 * lanes <= k; i += 2 * lanes) {
    const Vec<T> x0 = x ? load(x + i) : splat(T(1));
    const Vec<T> x1 = x ? load(x + i + lanes) : splat(T(1));
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      if constexpr (sizeof(W) == sizeof(Bfloat16)) {
        fetch_ahead(w[r] + i);
      }
      acc[r][0] += map_weight<kRead, T>(load_weight(w[r] + i), vp, vn) * x0;
      acc[r][1] += map_weight<kRead, T>(load_weight(w[r] + i + lanes), vp, vn) * x1;
    }
  }
  for (; i < k; i += lanes) {
    const Index n = k - i < lanes ? k - i : lanes;
    const Vec<T> x0 = x ? load_part(x + i, n) : ones_part<T>(n);  // 0 beyond the row's end
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      acc[r][0] += map_weight<kRead, T>(load_weight_part(w[r] + i, n), vp, vn) * x0;
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    z[r] += sum_lanes<T>(acc[r][0] + acc[r][1]);
  }
}

template <Read kRead, class T, class W, int kRows>
inline void axpy_rows(const W* const* w, Index k, Vec<T> vp, Vec<T> vn, const T* s, T* c) {
  constexpr int lanes = kLanes<T>;
  Vec<T> factor[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    factor[r] = splat(s[r]);
  }
  Index i = 0;
  for (; i + 2 * lanes <= k; i += 2 * lanes) {
    Vec<T> v0 = load(c + i), v1 = load(c + i + lanes);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      v0 += map_weight<kRead, T>(load_weight(w[r] + i), vp, vn) * factor[r];
      v1 += map_weight<kRead, T>(load_weight(w[r] + i + lanes), vp, vn) * factor[r];
    }
    store(c + i, v0);
    store(c + i + lanes, v1);
  }
  for (; i < k; i += lanes) {
    const Index n = k - i < lanes ? k - i : lanes;
    Vec<T> v = load_part(c + i, n);
#pragma GCC unroll 4
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
  if (r + 2 <= rows) {
    body(Height<2>{}, r);
    r += 2;
  }
  if (r < rows) {
    body(Height<1>{}, r);
  }
}

template <class T, class W>
void rows_dot(int rows, const W* const* w, Index k, Weights<T> map, const T* x, T* z) {
  const Vec<T> vp = splat(map.p), vn = splat(map.n);
  with_read(map.read, [&](auto read) {
    rows_together(rows, [&](auto height, int r) {
      dot_rows<decltype(read)::value, T, W, decltype(height)::value>(w + r, k, vp, vn, x, z + r);
    });
  });
}

template <class T, class W>
void rows_axpy(int rows, const W* const* w, Index k, Weights<T> map, const T* s, T* c) {
  const Vec<T> vp = splat(map.p), vn = splat(map.n);
  with_read(map.read, [&](auto read) {
    rows_together(rows, [&](auto height, int r) {
      axpy_rows<decltype(read)::value, T, W, decltype(height)::value>(w + r, k, vp, vn, s + r, c);
    });
  });
}

// Both at once: the rows that were read before are added from the cache while the next ones come from memory, which so
// never idles.
template <Read kRead, class T, class W>
inline void step_rows(const W* const* now, const W* const* next, Index k, Vec<T> vp, Vec<T> vn, const T* x, T* z,
                      const T* s, T* c) {
  constexpr int lanes = kLanes<T>, rows = kRowsAtOnce;
  Vec<T> acc[rows][2] = {}, factor[rows];
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    factor[r] = splat(s[r]);
  }
  Index i = 0;
  for (; i + 2 * lanes <= k; i += 2 * lanes) {
    const Vec<T> x0 = x ? load(x + i) : splat(T(1));
    const Vec<T> x1 = x ? load(x + i + lanes) : splat(T(1));
    Vec<T> v0 = load(c + i), v1 = load(c + i + lanes);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      fetch_ahead(next[r] + i);
      v0 += map_weight<kRead, T>(load_weight(now[r] + i), vp, vn) * factor[r];
      v1 += map_weight<kRead, T>(load_weight(now[r] + i + lanes), vp, vn) * factor[r];
      acc[r][0] += map_weight<kRead, T>(load_weight(next[r] + i), vp, vn) * x0;
      acc[r][1] += map_weight<kRead, T>(load_weight(next[r] + i + lanes), vp, vn) * x1;
    }
    store(c + i, v0);
    store(c + i + lanes, v1);
  }
  for (; i < k; i += lanes) {
    const Index n = k - i < lanes ? k - i : lanes;
    const Vec<T> x0 = x ? load_part(x + i, n) : ones_part<T>(n);
    Vec<T> v = load_part(c + i, n);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      v += map_weight<kRead, T>(load_weight_part(now[r] + i, n), vp, vn) * factor[r];
      acc[r][0] += map_weight<kRead, T>(load_weight_part(next[r] + i, n), vp, vn) * x0;
    }
    store_part(c + i, v, n);
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    z[r] += sum_lanes<T>(acc[r][0] + acc[r][1]);
  }
}

template <class T, class W>
void rows_step(const RowsStep<T, W>& args) {
  const Vec<T> vp = splat(args.map.p), vn = splat(args.map.n);
  int r = 0;
  with_read(args.map.read, [&](auto read) {
    for (; r + kRowsAtOnce <= args.rows && r + kRowsAtOnce <= args.next_rows; r += kRowsAtOnce) {
      step_rows<decltype(read)::value, T, W>(args.now + r, args.next + r, args.k, vp, vn, args.x, args.z + r,
                                             args.s + r, args.c);
    }
  });
  rows_axpy<T, W>(args.rows - r, args.now + r, args.k, args.map, args.s + r, args.c);
  rows_dot<T, W>(args.next_rows - r, args.next + r, args.k, args.map, args.x, args.z + r);
}
