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
