// Element by element: the shares s = R / stab(z) with what gets lost there, the product with the input, sums, scans.

// Rows of a panel lie far apart in the arrays it is cut from, and hardware prefetchers do not follow this stride:
// asks for the piece of a later row.
constexpr Index kRowsAhead = 12;
template <int kWrite, class T>
inline __attribute__((always_inline)) void fetch_row(const T* row, Index stride, Index cols) {
  if (stride > cols) {
    for (Index j = 0; j < cols; j += 64 / static_cast<Index>(sizeof(T))) {
      __builtin_prefetch(row + kRowsAhead * stride + j, kWrite);
    }
  }
}

// kCount sums, 0: as many as `mixed` says; kInput: of parts of the input only.
template <class T, int kCount, bool kInput>
inline void accumulate_rows(const Accumulate<T>& args) {
  // Local copies: the stores below can't alias them.
  const auto [rows, cols, mixed, acc_stride, a, a_stride, low, high, bound_stride, add, out, out_stride] = args;
  constexpr int lanes = kLanes<T>;
  const int count = kCount > 0 ? kCount : mixed.count;
  Mix<T> mix[kCount > 0 ? kCount : kMaxBacks];  // local copy: the stores below can't alias it
  bool reads_input = kInput, reads_low = false, reads_high = false;
  for (int b = 0; b < count; ++b) {
    mix[b] = mixed.mix[b];
    reads_input = reads_input || mix[b].input != 0 || mix[b].positive != 0 || mix[b].negative != 0;
    reads_low = reads_low || mix[b].low != 0;
    reads_high = reads_high || mix[b].high != 0;
  }
  for (Index i = 0; i < rows; ++i) {
    fetch_row<1>(out + i * out_stride, out_stride, cols);
    if (reads_input) {
      fetch_row<0>(a + i * a_stride, a_stride, cols);
    }
    for (Index j = 0; j < cols; j += lanes) {
      const Index n = cols - j;
      T* const target = out + i * out_stride + j;
      const Vec<T> x = reads_input ? load_n(a + i * a_stride + j, n) : Vec<T>{};
      const Vec<T> above = positive<T>(x), below = negative<T>(x);
      Vec<T> v = add ? load_n(target, n) : Vec<T>{};
      for (int b = 0; b < count; ++b) {
        Vec<T> m = mix[b].input * x + mix[b].positive * above + mix[b].negative * below;
        if constexpr (!kInput) {
          m += mix[b].one;
          if (reads_low) {
            m += mix[b].low * load_n(low + i * bound_stride + j, n);
          }
          if (reads_high) {
            m += mix[b].high * load_n(high + i * bound_stride + j, n);
          }
        }
        v += m * load_n(mixed.acc[b] + i * acc_stride + j, n);
      }
      store_n(target, v, n);
    }
  }
}

template <class T>
void accumulate(const Accumulate<T>& args) {
  const Mixed<T>& mixed = args.mixed;
  bool input = true;
  for (int b = 0; b < mixed.count; ++b) {
    const Mix<T>& mix = mixed.mix[b];
    input = input && mix.one == 0 && mix.low == 0 && mix.high == 0;
  }
  const auto run = !input || args.a == nullptr ? accumulate_rows<T, 0, false>
                   : mixed.count == 1          ? accumulate_rows<T, 1, true>
                   : mixed.count == 2          ? accumulate_rows<T, 2, true>
                                               : accumulate_rows<T, 0, true>;
  run(args);
}

template <class T>
inline __attribute__((always_inline)) Vec<T> stabilised(Vec<T> z, const Share<T>& g) {
  const Vec<T> zero = {}, eps = splat(g.epsilon);
  if (g.where_zero) {
    return z == zero ? eps : z;
  }
  return z + (z < zero ? -eps : eps);
}

// q = r / d where something is not finite: 0 where r is 0, where nothing can receive (d == 0) and where the quotient
// overflows.
template <class T>
inline Vec<T> careful_quotient(Vec<T> r, Vec<T> d, Vec<T> q) {
  const Vec<T> zero = {};
  const Vec<T> most = splat(sizeof(T) == 4 ? T(3.4028234663852886e38) : T(1.7976931348623157e308));
  const auto nothing = (d == zero) | (r == zero) | ((q < zero ? -q : q) > most);
  // A denominator that is NaN or overflowed must show up in the result: d - d is NaN for both.
  return nothing ? zero : ((d < zero ? -d : d) > most ? d - d : q);
}

// The numbers of sums, groups and what is masked are constants here for the rules met most, so that nothing is kept
// in memory between the loads and the division; kCount sums and as many groups, 0: as many as the plan says.
template <class T, int kCount, bool kLedger>
inline void shares_of_rows(const SharesOfRows<T>& args) {
  const auto [rows, cols, plan, z, z_stride, r, r_stride, s, s_stride, ledger, ledger_step] = args;
  constexpr int lanes = kLanes<T>;
  constexpr bool kKnown = kCount > 0;
  const int sums = kKnown ? kCount : plan.sums, groups = kKnown ? kCount : plan.groups;
  const bool masked = !kKnown && plan.masked;
  const Vec<T> zero = {};
  Share<T> of_group[kKnown ? kCount : kMaxGroups];  // local copy: the stores below can't alias it
  for (int g = 0; g < groups; ++g) {
    of_group[g] = plan.group[g];
  }
  Vec<T> by_bias = {}, by_stabilizer = {}, by_dead = {};
  for (Index i = 0; i < rows; ++i) {
    fetch_row<0>(r + i * r_stride, r_stride, cols);
    for (Index j = 0; j < cols; j += lanes) {
      const Index n = cols - j;
      const Vec<T> relevance = load_n(r + i * r_stride + j, n);
      Vec<T> sum[kKnown ? kCount : kMaxSums];
      for (int q = 0; q < sums; ++q) {
        sum[q] = load_n(z[q] + i * z_stride + j, n);
      }
      Vec<T> output = {};
      if (masked) {
        output = plan.plain_base ? load_n(plan.plain_base + j, n) : zero;
        for (int q = 0; q < sums; ++q) {
          output += plan.plain[q] * sum[q];
        }
      }
      [[maybe_unused]] Vec<T> held[kKnown ? 2 : kMaxGroups];
      Vec<T> unserved = relevance;  // what no group takes (a masked rule where the plain output is 0)
      for (int g = 0; g < groups; ++g) {
        const Share<T>& share = of_group[g];
        Vec<T> denominator = share.base ? load_n(share.base + j, n) : zero;
        for (int q = 0; q < sums; ++q) {
          denominator += share.coef[q] * sum[q];
        }
        Vec<T> numerator = share.coefficient * relevance;
        if (masked && share.mask != 0) {
          numerator = (share.mask > 0 ? output > zero : output < zero) ? numerator : zero;
        }
        const Vec<T> divisor = stabilised<T>(denominator, share);
        Vec<T> quot = numerator / divisor;
        [[maybe_unused]] Mask<T> lost = denominator == zero;
        if (any_nan<T>(quot * T(0) + divisor * T(0))) {
          quot = careful_quotient<T>(numerator, divisor, quot);
          lost |= quot == zero;
        }
        if constexpr (kCount != 1) {
          held[g] = quot;
        }
        if constexpr (kCount != 2) {
          store_n(s[g] + i * s_stride + j, quot, n);
        }
        if constexpr (kLedger) {
          unserved -= numerator;
          const Vec<T> kept = numerator - denominator * quot;
          by_dead = lost ? by_dead + kept : by_dead;
          if (share.epsilon != 0) {  // without epsilon what is left is rounding
            by_stabilizer = lost ? by_stabilizer : by_stabilizer + kept;
          }
          if (share.bias) {
            by_bias += load_n(share.bias + j, n) * quot;
          }
        }
      }
      if constexpr (kCount == 2) {
        const Vec<T> half_sum = T(0.5) * held[0] + T(0.5) * held[1];
        const Vec<T> half_difference = T(0.5) * held[0] - T(0.5) * held[1];
        store_n(s[0] + i * s_stride + j, plan.half_sum_and_difference ? half_sum : held[0], n);
        store_n(s[1] + i * s_stride + j, plan.half_sum_and_difference ? half_difference : held[1], n);
      } else if (!kKnown && plan.half_sum_and_difference) {
        store_n(s[0] + i * s_stride + j, T(0.5) * held[0] + T(0.5) * held[1], n);
        store_n(s[1] + i * s_stride + j, T(0.5) * held[0] - T(0.5) * held[1], n);
      }
      by_dead += unserved;
    }
    if constexpr (kLedger) {
      if (ledger_step != 0 || i + 1 == rows) {
        Absorbed& page = ledger[i * ledger_step];
        page.bias += static_cast<double>(sum_lanes<T>(by_bias));
        page.stabilizer += static_cast<double>(sum_lanes<T>(by_stabilizer));
        page.dead += static_cast<double>(sum_lanes<T>(by_dead));
        by_bias = by_stabilizer = by_dead = zero;
      }
    }
  }
}

template <class T>
void shares(const SharesOfRows<T>& args) {
  const Shares<T>& plan = args.rule;
  const bool ledger = args.ledger != nullptr;
  const int count = plan.masked || plan.sums != plan.groups ? 0 : plan.sums;
  const auto run = count == 1   ? (ledger ? shares_of_rows<T, 1, true> : shares_of_rows<T, 1, false>)
                   : count == 2 ? (ledger ? shares_of_rows<T, 2, true> : shares_of_rows<T, 2, false>)
                                : (ledger ? shares_of_rows<T, 0, true> : shares_of_rows<T, 0, false>);
  run(args);
}

template <class T>
Index left_over(const LeftOver<T>& args) {
  const auto [rows, cols, z, z_stride, bias, first, first_stride, out, out_stride, cancelled_at] = args;
  constexpr int lanes = kLanes<T>;
  const Vec<T> zero = {};
  Index count = 0;
  for (Index i = 0; i < rows; ++i) {
    fetch_row<0>(z + i * z_stride, z_stride, cols);
    for (Index j = 0; j < cols; j += lanes) {
      const Index n = cols - j;
      const Vec<T> whole = load_n(z + i * z_stride + j, n), part = load_n(first + i * first_stride + j, n);
      const Vec<T> shift = bias ? load_n(bias + j, n) : zero, left = whole - shift - part;
      store_n(out + i * out_stride + j, left, n);
      const Vec<T> size = left < zero ? -left : left;
      const Vec<T> most = part < zero ? -part : part, offset = shift < zero ? -shift : shift;
      const Mask<T> flags = ((T(16) * size < most) | (T(64) * size < offset)) & (whole != zero);
      if (any_lane<T>(flags)) {
        for (int l = 0; l < lanes; ++l) {
          if (flags[l] != 0) {
            cancelled_at[count++] = i * cols + j + l;
          }
        }
      }
    }
  }
  return count;
}

template <class T>
void finish(const Finish<T>& args) {
  const auto [rows, cols, acc, acc_stride, bias, low, high, out, out_stride] = args;
  constexpr int lanes = kLanes<T>;
  const Vec<T> least = splat(low), most = splat(high);
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < cols; j += lanes) {
      const Index n = cols - j;
      Vec<T> v = load_n(acc + i * acc_stride + j, n);
      if (bias) {
        v += load_n(bias + j, n);
      }
      v = v < least ? least : v;  // NaN stays NaN
      store_n(out + i * out_stride + j, v > most ? most : v, n);
    }
  }
}

template <class T>
void part_of(Index n, const T* x, int part, T* out) {
  for (Index i = 0; i < n; i += kLanes<T>) {
    const Vec<T> v = load_n(x + i, n - i);
    store_n(out + i, part > 0 ? positive<T>(v) : (part < 0 ? negative<T>(v) : positive<T>(v) - negative<T>(v)), n - i);
  }
}

template <class T>
Index cancelled(Index rows, Index cols, const T* first, const T* second, Index stride, Index most, Index* at) {
  constexpr int lanes = kLanes<T>;
  const Vec<T> zero = {};
  Index count = 0;
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < cols; j += lanes) {
      const Index n = cols - j;
      const Vec<T> sum = load_n(first + i * stride + j, n), whole = load_n(second + i * stride + j, n);
      const Vec<T> size = sum < zero ? -sum : sum;
      const Mask<T> flags = size > T(31.0 / 32) * whole;  // 0 > 0 in lanes beyond the row
      if (any_lane<T>(flags)) {
        for (int l = 0; l < lanes; ++l) {
          if (flags[l] != 0) {
            if (count < most) {
              at[count] = i * cols + j + l;
            }
            ++count;
          }
        }
      }
    }
  }
  return count;
}

// In double, in a fixed order. Four sums of eight side by side: one would wait for itself.
template <class T>
double sum(Index n, const T* x) {
  typedef double Eight __attribute__((vector_size(8 * sizeof(double))));
  typedef T Part __attribute__((vector_size(8 * sizeof(T))));
  Eight acc[4] = {};
  Index i = 0;
  for (; i + 32 <= n; i += 32) {
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      Part part;
      __builtin_memcpy(&part, x + i + 8 * c, sizeof part);
      acc[c] += __builtin_convertvector(part, Eight);
    }
  }
  double rest = 0;
  for (; i < n; ++i) {
    rest += static_cast<double>(x[i]);
  }
  const Eight all = (acc[0] + acc[2]) + (acc[1] + acc[3]);
  return (((all[0] + all[4]) + (all[2] + all[6])) + ((all[1] + all[5]) + (all[3] + all[7]))) + rest;
}

// In blocks, so that float adds up few terms.
template <class T>
double dot(Index n, const T* x, const T* y) {
  constexpr int lanes = kLanes<T>;
  constexpr Index kBlock = 512;
  double total = 0;
  for (Index first = 0; first < n; first += kBlock) {
    const Index end = n - first < kBlock ? n : first + kBlock;
    Vec<T> acc[4] = {};
    Index i = first;
    for (; i + 4 * lanes <= end; i += 4 * lanes) {
      for (int l = 0; l < 4; ++l) {
        acc[l] += load(x + i + l * lanes) * load(y + i + l * lanes);
      }
    }
    for (; i < end; i += lanes) {
      acc[0] += load_n(x + i, end - i) * load_n(y + i, end - i);
    }
    total += static_cast<double>(sum_lanes<T>((acc[0] + acc[1]) + (acc[2] + acc[3])));
  }
  return total;
}

template <class T>
int scan(Index n, const T* x) {
  constexpr int lanes = kLanes<T>;
  Vec<T> least = {}, bad = {}, others = {};  // one sum would wait for itself
  const auto look = [&](Vec<T> v, Vec<T> u) {
    least = v < least ? v : least;
    least = u < least ? u : least;
    bad += v * T(0);  // NaN for NaN and infinities
    others += u * T(0);
  };
  Index i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    look(load(x + i), load(x + i + lanes));
  }
  for (; i < n; i += lanes) {
    look(load_n(x + i, n - i), Vec<T>{});
  }
  bad += others;
  int flags = 0;
  for (int l = 0; l < lanes; ++l) {
    flags |= least[l] < 0 ? kHasNegative : 0;
    flags |= bad[l] == 0 ? 0 : kNotFinite;
  }
  return flags;
}
