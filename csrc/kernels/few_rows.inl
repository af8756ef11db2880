// Products of one or two rows with packed panels.

// With few rows a panel alone leaves the processor waiting for its own sums: several at a time.
template <class T, int kRows, int kVectors>
void few_rows_of(Index k, const T* x, Index x_stride, const T* panel, Index panel_stride, bool add, T* out,
                 Index out_stride) {
  constexpr int lanes = kLanes<T>;
  Vec<T> acc[kRows][kVectors] = {};
  for (Index p = 0; p < k; ++p) {
    Vec<T> factor[kRows];
#pragma GCC unroll 2
    for (int i = 0; i < kRows; ++i) {
      factor[i] = splat(x[i * x_stride + p]);
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Vec<T> b = load(panel + v / 2 * panel_stride + (2 * p + v % 2) * lanes);
#pragma GCC unroll 2
      for (int i = 0; i < kRows; ++i) {
        acc[i][v] += factor[i] * b;
      }
    }
  }
#pragma GCC unroll 2
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      T* const target = out + i * out_stride + v * lanes;
      store(target, add ? load(target) + acc[i][v] : acc[i][v]);
    }
  }
}

template <class T, int kRows, int kPanels>
void few_rows_in(const FewRows<T>& args) {
  const Index width = 2 * kLanes<T>;
  const auto some = [&](auto vectors, Index p) {
    few_rows_of<T, kRows, decltype(vectors)::value>(args.k, args.x, args.x_stride, args.panel + p * args.panel_stride,
                                                    args.panel_stride, args.add, args.out + p * width, args.out_stride);
  };
  const Index whole = args.panels - (args.halves == 1 ? 1 : 0);
  Index p = 0;
  for (; p + kPanels <= whole; p += kPanels) {
    some(Height<2 * kPanels>{}, p);
  }
  for (; p < whole; ++p) {
    some(Height<2>{}, p);
  }
  if (p < args.panels) {
    some(Height<1>{}, p);
  }
}

template <class T>
void few_rows(const FewRows<T>& args) {
  args.rows == 1 ? few_rows_in<T, 1, 4>(args) : few_rows_in<T, 2, 2>(args);
}
