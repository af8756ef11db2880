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
void tile_taps(const TileTaps<T>& args) {
  if constexpr (kRows > 1) {
    if (args.rows < kRows) {
      return tile_taps<T, kRows - 1>(args);
    }
  }
  if (args.halves == 1) {
    return tap_rows<T, kRows, 1>(args.taps, args.k, args.rows_at, args.panel, args.add, args.out, args.out_stride);
  }
  tap_rows<T, kRows, 2>(args.taps, args.k, args.rows_at, args.panel, args.add, args.out, args.out_stride);
}

// A few rows at a time share each weight that is loaded; `n` counts for a part of a vector.
template <Read kRead, class T, int kRows, int kVectors>
inline __attribute__((always_inline)) void depthwise_vectors(int taps, Index n, Index j, const T* const* at,
                                                             Index first, Index step, const T* const* w, Vec<T> vp,
                                                             Vec<T> vn, bool add, T* out, Index out_stride) {
  constexpr int lanes = kLanes<T>;
  Vec<T> acc[kRows][kVectors] = {};
  for (int t = 0; t < taps; ++t) {
    Vec<T> weight[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      weight[v] = map_weight<kRead, T>(load_n(w[t] + j + v * lanes, n), vp, vn);
    }
    const T* const x = at[t] + first + j;
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        acc[i][v] += weight[v] * load_n(x + i * step + v * lanes, n);
      }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      T* const target = out + i * out_stride + j + v * lanes;
      store_n(target, add ? load_n(target, n) + acc[i][v] : acc[i][v], n);
    }
  }
}

template <class T>
void depthwise(const Depthwise<T>& args) {
  constexpr int lanes = kLanes<T>;
  const int rows = args.rows, taps = args.taps;
  const Index n = args.n, step = args.step, out_stride = args.out_stride;
  const T* const* const at = args.at;
  const T* const* const w = args.w;
  const bool add = args.add;
  T* const out = args.out;
  const Vec<T> vp = splat(args.map.p), vn = splat(args.map.n);
  with_read(args.map.read, [&](auto read) {
    constexpr Read kRead = decltype(read)::value;
    const auto columns = [&](auto height, int i) {
      constexpr int kRows = decltype(height)::value;
      T* const to = out + i * out_stride;
      const Index first = i * step;
      Index j = 0;
      for (; j + 2 * lanes <= n; j += 2 * lanes) {
        depthwise_vectors<kRead, T, kRows, 2>(taps, lanes, j, at, first, step, w, vp, vn, add, to, out_stride);
      }
      for (; j < n; j += lanes) {
        depthwise_vectors<kRead, T, kRows, 1>(taps, n - j, j, at, first, step, w, vp, vn, add, to, out_stride);
      }
    };
    int i = 0;
    for (; i + 4 <= rows; i += 4) {
      columns(Height<4>{}, i);
    }
    if (rows - i == 3) {
      columns(Height<3>{}, i);
    } else if (rows - i == 2) {
      columns(Height<2>{}, i);
    } else if (rows - i == 1) {
      columns(Height<1>{}, i);
    }
  });
}
