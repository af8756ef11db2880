// Windows of pools: rows found by pointers, element by element.

// The maximum, or the sum divided by `divisor`. A NaN shows up in the result.
template <class T>
void pool_rows(int count, const T* const* rows_at, Index n, bool max, T divisor, T* out) {
  constexpr int lanes = kLanes<T>;
  for (Index j = 0; j < n; j += lanes) {
    const Index left = n - j;
    Vec<T> total = load_n(rows_at[0] + j, left);
    if (max) {
      for (int w = 1; w < count; ++w) {
        const Vec<T> v = load_n(rows_at[w] + j, left);
        total = ((v > total) | (v != v)) ? v : total;
      }
    } else {
      for (int w = 1; w < count; ++w) {
        total += load_n(rows_at[w] + j, left);
      }
      total /= divisor;
    }
    store_n(out + j, total, left);
  }
}

// to_w = or += r where row w has the maximum, the first of ties; 0 elsewhere.
template <class T>
void to_winner(int count, const T* const* rows_at, Index n, const T* r, bool add, T* const* to) {
  constexpr int lanes = kLanes<T>;
  const Vec<T> zero = {};
  for (Index j = 0; j < n; j += lanes) {
    const Index left = n - j;
    Vec<T> best = load_n(rows_at[0] + j, left), winner = zero;
    for (int w = 1; w < count; ++w) {
      const Vec<T> v = load_n(rows_at[w] + j, left);
      winner = v > best ? splat(static_cast<T>(w)) : winner;
      best = v > best ? v : best;
    }
    const Vec<T> relevance = load_n(r + j, left);
    for (int w = 0; w < count; ++w) {
      const Vec<T> part = winner == splat(static_cast<T>(w)) ? relevance : zero;
      store_n(to[w] + j, add ? load_n(to[w] + j, left) + part : part, left);
    }
  }
}
