// A product whose lanes are samples: weights are read where they stand, a number for all lanes, and never packed or
// turned; the samples are packed once. With few samples that is most of the work, with many an eighth.

// kRows rows of weights: of each, a sum a lane. Rows that are read next are fetched meanwhile, a line a step.
template <class T, int kRows, int kVectors>
void sample_rows(const SampleTile<T>& tile, Index first) {
  constexpr int lanes = kLanes<T>;
  constexpr Index kLine = 64 / static_cast<Index>(sizeof(T));
  static_assert(kRows <= kLine, "the rows that are fetched");
  const Index stride = tile.stride, step = tile.samples;
  // Every third row has a pointer, the others are reached from it. The compiler, left alone, keeps one a row, more than
  // there are registers.
  constexpr int kBases = (kRows + 2) / 3;
  const T* base[kBases];
  for (int i = 0; i < kBases; ++i) {
    base[i] = tile.w + (first + 3 * i) * stride;
  }
  const T* x = tile.x;
  Vec<T> acc[kRows][kVectors] = {};
  for (Index p = 0; p < tile.k; ++p, x += step) {
    if (tile.next != nullptr && p % kLine < kRows) {
      __builtin_prefetch(tile.next + p % kLine * tile.next_stride + p / kLine * kLine, 0, 2);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kBases; ++i) {
      __asm__("" : "+r"(base[i]));
    }
    Vec<T> b[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      b[v] = load(x + v * lanes);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        acc[i][v] += base[i / 3][i % 3 * stride] * b[v];
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kBases; ++i) {
      ++base[i];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      T* const sum = tile.sums + (first + i) * 2 * lanes + v * lanes;
      store(sum, tile.add ? load(sum) + acc[i][v] : acc[i][v]);
    }
  }
}

// A panel's rows, 2 * lanes, are taken in parts of as many as the registers hold, nearly equal.
template <class T>
constexpr int kSampleParts = (2 * kLanes<T> + PYLRP_TILE_ROWS - 1) / PYLRP_TILE_ROWS;

template <class T>
void samples(const SampleTile<T>& tile) {
  constexpr int width = 2 * kLanes<T>, parts = kSampleParts<T>, fewer = width / parts;
  constexpr int more = fewer * parts < width ? fewer + 1 : fewer;
  const Index first = width * tile.part / parts;
  const bool one = tile.samples <= kLanes<T>;
  if (width * (tile.part + 1) / parts - first == more) {
    one ? sample_rows<T, more, 1>(tile, first) : sample_rows<T, more, 2>(tile, first);
  } else {
    one ? sample_rows<T, fewer, 1>(tile, first) : sample_rows<T, fewer, 2>(tile, first);
  }
}

template <class T>
void map_weights(Index n, const T* w, Weights<T> map, T* out) {
  constexpr int lanes = kLanes<T>;
  const Vec<T> vp = splat(map.p), vn = splat(map.n);
  with_read(map.read, [&](auto read) {
    constexpr Read kRead = decltype(read)::value;
    Index i = 0;
    for (; i + lanes <= n; i += lanes) {
      store(out + i, map_weight<kRead, T>(load(w + i), vp, vn));
    }
    if (i < n) {
      store_part(out + i, map_weight<kRead, T>(load_part(w + i, n - i), vp, vn), n - i);
    }
  });
}
