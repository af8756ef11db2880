// The one building block: a register tile of a product, out(rows, 2 vectors) (+)= left(k, rows)^T panel(k, 2 vectors),
// where the panel's rows may lie apart, and the packing that feeds it. Weight maps and input parts are applied while
// packing: no modified matrix exists.

template <class T, int kRows>
void tile_rows(Index k, const T* __restrict left, const T* __restrict panel, Index step, bool add, T* __restrict out) {
  constexpr int lanes = kLanes<T>;
  if (add) {
#pragma GCC unroll 32
    for (int i = 0; i < 2 * kRows; ++i) {  // on their way while the tile is computed
      __builtin_prefetch(out + i * lanes, 1);
    }
  }
  Vec<T> acc[kRows][2] = {};
  for (Index p = 0; p < k; ++p) {
    const Vec<T> b0 = load(panel);
    const Vec<T> b1 = load(panel + lanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      acc[i][0] += left[i] * b0;
      acc[i][1] += left[i] * b1;
    }
    left += kRows;
    panel += step;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    T* const row = out + i * 2 * lanes;
    store(row, add ? load(row) + acc[i][0] : acc[i][0]);
    store(row + lanes, add ? load(row + lanes) + acc[i][1] : acc[i][1]);
  }
}

// Picks the tile of `rows` rows: tiles of nearly equal height waste less than one short tile at the end.
template <class T, int kRows = PYLRP_TILE_ROWS>
void tile(int rows, Index k, const T* left, const T* panel, Index step, bool add, T* out) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return tile<T, kRows - 1>(rows, k, left, panel, step, add, out);
    }
  }
  tile_rows<T, kRows>(k, left, panel, step, add, out);
}

// In-register transpose of a (lanes, lanes) block: at step d, rows i and i + d exchange their off-diagonal blocks.
template <class T, int kStep, int... kIndex>
inline __attribute__((always_inline)) void exchange(Vec<T>& a, Vec<T>& b, Lanes<kIndex...>) {
  constexpr int lanes = kLanes<T>;
  const Vec<T> upper = shuffle<T, ((kIndex & kStep) == 0 ? kIndex : lanes + kIndex - kStep)...>(a, b);
  const Vec<T> lower = shuffle<T, ((kIndex & kStep) == 0 ? kIndex + kStep : lanes + kIndex)...>(a, b);
  a = upper;
  b = lower;
}
template <class T, int kStep = kLanes<T> / 2>
inline __attribute__((always_inline)) void transpose(Vec<T>* rows) {
  if constexpr (kStep > 0) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) {
      if ((i & kStep) == 0) {
        exchange<T, kStep>(rows[i], rows[i + kStep], typename MakeLanes<kLanes<T>>::type{});
      }
    }
    transpose<T, kStep / 2>(rows);
  }
}

// Groups of `lanes` rows, transposed block by block. A store writes a whole vector: what reaches beyond the last row
// lands on the next k, which is written afterwards; so the last group goes first, and `left` ends with a spare vector.
template <class T>
void pack_left(int rows, Index k, const T* x, Index stride, int part, T* left) {
  constexpr int lanes = kLanes<T>;
  for (int first = (rows - 1) / lanes * lanes; first >= 0; first -= lanes) {
    const int valid = rows - first < lanes ? rows - first : lanes;
    const T* const block_rows = x + first * stride;
    Index p = 0;
    for (; p + lanes <= k; p += lanes) {
      Vec<T> block[lanes];
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i) {
        block[i] = i < valid ? take_part<T>(load(block_rows + i * stride + p), part) : Vec<T>{};
      }
      transpose<T>(block);
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i) {
        store(left + (p + i) * rows + first, block[i]);
      }
    }
    for (; p < k; ++p) {
      for (int i = 0; i < valid; ++i) {
        const T v = block_rows[i * stride + p];
        left[p * rows + first + i] = part == 0 ? v : (part > 0 ? (v < 0 ? T(0) : v) : (v > 0 ? T(0) : v));
      }
    }
  }
}

template <class T>
bool pack_forward(int cols, Index k, const T* w, Index stride, Weights<T> map, T* panel, Index step) {
  constexpr int lanes = kLanes<T>;
  const Vec<T> vp = splat(map.p), vn = splat(map.n);
  Vec<T> spoilt[2] = {};  // NaN in a lane that met a weight which is not finite
  with_read(map.read, [&](auto read) {
    constexpr Read kRead = decltype(read)::value;
    for (int half = 0; half < 2; ++half) {
      const int first = half * lanes;
      const int valid = cols - first < lanes ? (cols > first ? cols - first : 0) : lanes;
      Index p = 0;
      if (valid == lanes) {
        for (; p + lanes <= k; p += lanes) {
          Vec<T> block[lanes];
#pragma GCC unroll 16
          for (int j = 0; j < lanes; ++j) {
            block[j] = map_weight<kRead, T>(load(w + (first + j) * stride + p), vp, vn);
            spoilt[j % 2] += block[j] * Vec<T>{};
          }
          transpose<T>(block);
#pragma GCC unroll 16
          for (int j = 0; j < lanes; ++j) {
            store(panel + (p + j) * step + first, block[j]);
          }
        }
      }
      for (; p < k; ++p) {
        T column[lanes] = {};
        for (int j = 0; j < valid; ++j) {
          column[j] = w[(first + j) * stride + p];
        }
        const Vec<T> mapped = map_weight<kRead, T>(load(column), vp, vn);
        spoilt[0] += mapped * Vec<T>{};
        store(panel + p * step + first, mapped);
      }
    }
  });
  return sum_lanes<T>(spoilt[0] + spoilt[1]) != 0;
}

template <class T>
bool pack_backward(int cols, Index k, const T* w, Index stride, Weights<T> map, T* panel, Index step) {
  constexpr int lanes = kLanes<T>;
  const Vec<T> vp = splat(map.p), vn = splat(map.n);
  Vec<T> spoilt[2] = {};
  const Index valid0 = cols < lanes ? cols : lanes, valid1 = cols - valid0;
  with_read(map.read, [&](auto read) {
    constexpr Read kRead = decltype(read)::value;
    const bool whole = cols == 2 * lanes;
    for (Index p = 0; p < k; ++p, w += stride, panel += step) {
      const Vec<T> w0 = map_weight<kRead, T>(whole ? load(w) : load_part(w, valid0), vp, vn);
      const Vec<T> w1 = map_weight<kRead, T>(whole ? load(w + lanes) : load_part(w + valid0, valid1), vp, vn);
      spoilt[0] += w0 * Vec<T>{};
      spoilt[1] += w1 * Vec<T>{};
      store(panel, w0);
      store(panel + lanes, w1);
    }
  });
  return sum_lanes<T>(spoilt[0] + spoilt[1]) != 0;
}

// Nothing but independent fused multiply-adds in registers: the machine's ceiling, for the benchmarks.
// Returns the number of floating-point operations.
template <class T>
double peak(Index rounds, T* sink) {
  constexpr int chains = 12;  // two units times a latency of four to five cycles
  Vec<T> acc[chains];
  for (int c = 0; c < chains; ++c) {
    acc[c] = splat(T(c));  // all different, or the compiler would merge them
  }
  const Vec<T> x = splat(sink[0]), y = splat(sink[1]);
  for (Index i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < chains; ++c) {
      acc[c] = acc[c] * x + y;
    }
  }
  for (int c = 0; c < chains; ++c) {
    sink[0] += sum_lanes<T>(acc[c]);
  }
  return 2.0 * chains * kLanes<T> * static_cast<double>(rounds);
}
