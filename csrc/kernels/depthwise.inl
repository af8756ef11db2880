// Depthwise convolutions: a channel meets only itself, so that channels lie along the lanes.

// A few rows at a time share each weight that is loaded; `n` counts for a part of a vector.
template <class T, int kRows, int kVectors>
inline __attribute__((always_inline)) void depthwise_vectors(int taps, Index n, Index j, const T* const* at,
                                                             Index first, Index step, const T* const* w, bool add,
                                                             T* out, Index out_stride) {
  constexpr int lanes = kLanes<T>;
  Vec<T> acc[kRows][kVectors] = {};
  for (int t = 0; t < taps; ++t) {
    Vec<T> weight[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      weight[v] = load_n(w[t] + j + v * lanes, n);
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
  const auto columns = [&](auto height, int i) {
    constexpr int kRows = decltype(height)::value;
    T* const to = out + i * out_stride;
    const Index first = i * step;
    Index j = 0;
    for (; j + 2 * lanes <= n; j += 2 * lanes) {
      depthwise_vectors<T, kRows, 2>(taps, lanes, j, at, first, step, w, add, to, out_stride);
    }
    for (; j < n; j += lanes) {
      depthwise_vectors<T, kRows, 1>(taps, n - j, j, at, first, step, w, add, to, out_stride);
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
}

// kRows positions of a line, from one that meets pixel `x` with its first tap: a pixel that was read serves all
// positions that it is a tap of. Pixels outside the line are none.
template <class T, int kTaps, int kScale, int kRows>
inline __attribute__((always_inline)) void line_block(const DepthwiseLine<T>& args, Index x, Index j, Index n, T* out) {
  constexpr int pixels = kScale * (kRows - 1) + kTaps;
  unsigned inside = (1u << pixels) - 1;
  if (x < 0 || x + pixels > args.pixels) {
    inside = 0;
    for (int i = 0; i < pixels; ++i) {
      inside |= (x + i >= 0 && x + i < args.pixels ? 1u : 0u) << i;
    }
  }
  Vec<T> acc[kRows] = {};
  for (int t = 0; t < args.lines; ++t) {
    Vec<T> weight[kTaps];
#pragma GCC unroll 8
    for (int l = 0; l < kTaps; ++l) {
      weight[l] = load_n(args.w[t] + l * args.w_step + j, n);
    }
    const Index from = x * args.step + j;
#pragma GCC unroll 32
    for (int i = 0; i < pixels; ++i) {
      if ((inside >> i & 1u) != 0) {
        const Vec<T> value = load_n(args.at[t] + (from + i * args.step), n);
#pragma GCC unroll 8
        for (int l = 0; l < kTaps; ++l) {
          if ((i - l) % kScale == 0 && i >= l && (i - l) / kScale < kRows) {
            acc[(i - l) / kScale] += weight[l] * value;
          }
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    store_n(out + i * args.out_stride + j, acc[i], n);
  }
}

// Some channels at a time along the line: whole cache lines of a pixel side by side, few enough for the L1 cache.
template <class T, int kTaps, int kScale>
void line_of(const DepthwiseLine<T>& args) {
  constexpr int rows = 7;  // images are 7 x 2^n pixels wide, mostly
  constexpr Index lanes = kLanes<T>, together = 4 * lanes;
  for (Index some = 0; some < args.n; some += together) {
    const Index end = some + together < args.n ? some + together : args.n;
    const Index whole = args.rows >= rows ? some + (end - some) / lanes * lanes : some;
    for (Index p = 0; some < whole && p < args.rows; p += rows) {
      const Index first = p + rows <= args.rows ? p : args.rows - rows;  // some are computed twice
      for (Index j = some; j < whole; j += lanes) {
        line_block<T, kTaps, kScale, rows>(args, args.first + kScale * first, j, lanes,
                                           args.out + first * args.out_stride);
      }
    }
    for (Index p = 0; whole < end && p < args.rows; ++p) {
      for (Index j = whole; j < end; j += lanes) {
        line_block<T, kTaps, kScale, 1>(args, args.first + kScale * p, j, end - j, args.out + p * args.out_stride);
      }
    }
  }
}

template <class T>
void depthwise_line(const DepthwiseLine<T>& args) {
  if (args.scale == 2) {
    return args.taps == 3 ? line_of<T, 3, 2>(args) : line_of<T, 5, 2>(args);
  }
  switch (args.taps) {
    case 1:
      return line_of<T, 1, 1>(args);
    case 2:
      return line_of<T, 2, 1>(args);
    case 3:
      return line_of<T, 3, 1>(args);
    default:
      return line_of<T, 5, 1>(args);
  }
}
