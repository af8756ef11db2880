// Whole weight rows, for few samples: the products with a row while it is in cache. Memory would idle while rows are
// read from cache again, so both loops also ask for the rows that come next (`ahead`, may be null): the dot product for
// one half of their cache lines, the sum for the other.

template <class T>
inline Vec<T> ones_part(Index n) {
  Vec<T> v = {};
  for (Index i = 0; i < n; ++i) {
    v[i] = T(1);
  }
  return v;
}

template <Read kRead, class T, int kRows>
inline void dot_rows(const T* const* w, Index k, Vec<T> vp, Vec<T> vn, const T* x, T* z, const T* const* ahead) {
  constexpr int lanes = kLanes<T>;
  Vec<T> acc[kRows][2] = {};
  Index i = 0;
  for (; i + 2 * lanes <= k; i += 2 * lanes) {
    const Vec<T> x0 = x ? load(x + i) : splat(T(1));
    const Vec<T> x1 = x ? load(x + i + lanes) : splat(T(1));
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      if (ahead) {
        __builtin_prefetch(ahead[r] + i, 0, 2);
      }
      acc[r][0] += map_weight<kRead, T>(load(w[r] + i), vp, vn) * x0;
      acc[r][1] += map_weight<kRead, T>(load(w[r] + i + lanes), vp, vn) * x1;
    }
  }
  for (; i < k; i += lanes) {
    const Index n = k - i < lanes ? k - i : lanes;
    const Vec<T> x0 = x ? load_part(x + i, n) : ones_part<T>(n);  // 0 beyond the row's end
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      acc[r][0] += map_weight<kRead, T>(load_part(w[r] + i, n), vp, vn) * x0;
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    z[r] += sum_lanes<T>(acc[r][0] + acc[r][1]);
  }
}

template <class T>
void rows_dot(int rows, const T* const* w, Index k, Weights<T> map, const T* x, T* z, const T* const* ahead) {
  const Vec<T> vp = splat(map.p), vn = splat(map.n);
  with_read(map.read, [&](auto read) {
    constexpr Read kRead = decltype(read)::value;
    int r = 0;
    for (; r + 4 <= rows; r += 4) {
      dot_rows<kRead, T, 4>(w + r, k, vp, vn, x, z + r, ahead ? ahead + r : nullptr);
    }
    for (; r < rows; ++r) {
      dot_rows<kRead, T, 1>(w + r, k, vp, vn, x, z + r, ahead ? ahead + r : nullptr);
    }
  });
}

template <Read kRead, class T, int kRows>
inline void axpy_rows(const T* const* w, Index k, Vec<T> vp, Vec<T> vn, const T* s, T* c, const T* const* ahead) {
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
      if (ahead) {
        __builtin_prefetch(ahead[r] + i + lanes, 0, 2);
      }
      v0 += map_weight<kRead, T>(load(w[r] + i), vp, vn) * factor[r];
      v1 += map_weight<kRead, T>(load(w[r] + i + lanes), vp, vn) * factor[r];
    }
    store(c + i, v0);
    store(c + i + lanes, v1);
  }
  for (; i < k; i += lanes) {
    const Index n = k - i < lanes ? k - i : lanes;
    Vec<T> v = load_part(c + i, n);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      v += map_weight<kRead, T>(load_part(w[r] + i, n), vp, vn) * factor[r];
    }
    store_part(c + i, v, n);
  }
}

template <class T>
void rows_axpy(int rows, const T* const* w, Index k, Weights<T> map, const T* s, T* c, const T* const* ahead) {
  const Vec<T> vp = splat(map.p), vn = splat(map.n);
  with_read(map.read, [&](auto read) {
    constexpr Read kRead = decltype(read)::value;
    int r = 0;
    for (; r + 4 <= rows; r += 4) {
      axpy_rows<kRead, T, 4>(w + r, k, vp, vn, s + r, c, ahead ? ahead + r : nullptr);
    }
    for (; r < rows; ++r) {
      axpy_rows<kRead, T, 1>(w + r, k, vp, vn, s + r, c, ahead ? ahead + r : nullptr);
    }
  });
}
