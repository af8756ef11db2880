// Products over the taps of a convolution: the rows of the left operand (a pixel's channels) are found by pointers, so
// that strides, dilation and padding cost nothing and no matrix of image patches exists.

template <class T, int kRows, int kHalves>
void tap_rows(int taps, Index k, const T* const* rows_at, const T* __restrict panel, bool add, T* __restrict out,
              Index out_stride) {
  constexpr int lanes = kLanes<T>;
  Vec<T> acc[kRows][kHalves] = {};
  for (int t = 0; t < taps; ++t) {
    const T* x[kRows];
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      x[i] = rows_at[i];
    }
    rows_at += kRows;
    for (Index p = 0; p < k; ++p) {
      Vec<T> b[kHalves];
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        b[h] = load(panel + h * lanes);
      }
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const T factor = x[i][p];
#pragma GCC unroll 2
        for (int h = 0; h < kHalves; ++h) {
          acc[i][h] += factor * b[h];
        }
      }
      panel += 2 * lanes;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      T* const target = out + i * out_stride + h * lanes;
      store(target, add ? load(target) + acc[i][h] : acc[i][h]);
    }
  }
}

template <class T, int kRows = PYLRP_TILE_ROWS>
void tile_taps(int rows, int halves, int taps, Index k, const T* const* rows_at, const T* panel, bool add, T* out,
               Index out_stride) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return tile_taps<T, kRows - 1>(rows, halves, taps, k, rows_at, panel, add, out, out_stride);
    }
  }
  if (halves == 1) {
    return tap_rows<T, kRows, 1>(taps, k, rows_at, panel, add, out, out_stride);
  }
  tap_rows<T, kRows, 2>(taps, k, rows_at, panel, add, out, out_stride);
}

// A few rows at a time share each weight that is loaded.
template <Read kRead, class T, int kRows>
inline void depthwise_rows(int rows, int taps, Index n, const T* const* rows_at, const T* w, Vec<T> vp, Vec<T> vn,
                           bool add, T* out, Index out_stride) {
  constexpr int lanes = kLanes<T>;
  Index j = 0;
  for (; j + lanes <= n; j += lanes) {
    Vec<T> acc[kRows] = {};
    for (int t = 0; t < taps; ++t) {
      const Vec<T> weight = map_weight<kRead, T>(load(w + t * n + j), vp, vn);
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) {
        acc[i] += weight * load(rows_at[t * rows + i] + j);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      T* const target = out + i * out_stride + j;
      store(target, add ? load(target) + acc[i] : acc[i]);
    }
  }
  if (j < n) {
    const Index left = n - j;
    Vec<T> acc[kRows] = {};
    for (int t = 0; t < taps; ++t) {
      const Vec<T> weight = map_weight<kRead, T>(load_n(w + t * n + j, left), vp, vn);
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) {
        acc[i] += weight * load_n(rows_at[t * rows + i] + j, left);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      T* const target = out + i * out_stride + j;
      store_n(target, add ? load_n(target, left) + acc[i] : acc[i], left);
    }
  }
}

template <class T>
void depthwise(int rows, int taps, Index n, const T* const* rows_at, const T* w, Weights<T> map, bool add, T* out,
               Index out_stride) {
  const Vec<T> vp = splat(map.p), vn = splat(map.n);
  with_read(map.read, [&](auto read) {
    constexpr Read kRead = decltype(read)::value;
    int i = 0;
    for (; i + 4 <= rows; i += 4) {
      depthwise_rows<kRead, T, 4>(rows, taps, n, rows_at + i, w, vp, vn, add, out + i * out_stride, out_stride);
    }
    for (; i < rows; ++i) {
      depthwise_rows<kRead, T, 1>(rows, taps, n, rows_at + i, w, vp, vn, add, out + i * out_stride, out_stride);
    }
  });
}
