// What a task of attention works on: the keys and values of some heads, packed; the scores of a block of queries; what
// relevance adds up over queries. For attention.cpp and relevance.cpp.
#pragma once

#include <algorithm>
#include <vector>

#include "base/buffer.hpp"
#include "layers/attention/attention.hpp"
#include "products/packed.hpp"

namespace pylrp {

inline constexpr Index kQueriesAtOnce = 64;  // their scores stay in the L2 cache up to a thousand keys
static_assert(kQueriesAtOnce <= Packed<float>::kMostRows && kQueriesAtOnce <= Packed<double>::kMostRows);

// body(i, j) for all entries of (rows, cols), along the shorter step first.
template <class Body>
void each_entry(Index rows, Index cols, Index row_step, Index col_step, Body body) {
  if (row_step < col_step) {
    for (Index j = 0; j < cols; ++j) {
      for (Index i = 0; i < rows; ++i) {
        body(i, j);
      }
    }
    return;
  }
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < cols; ++j) {
      body(i, j);
    }
  }
}

// Rows of a head's matrix side by side, times a factor.
template <class T>
void gather(const T* from, Index rows, Index cols, Index row_step, Index col_step, T factor, T* to) {
  each_entry(rows, cols, row_step, col_step,
             [&](Index i, Index j) { to[i * cols + j] = factor * from[i * row_step + j * col_step]; });
}

// to = from * factor * part, where a head's matrix lies; from null: ones.
template <class T>
void hand_on(const T* from, const Matrix<const T>& part, Index row_step, Index col_step, T factor, T* to) {
  each_entry(part.rows, part.cols, row_step, col_step, [&](Index i, Index j) {
    const Index at = i * row_step + j * col_step;
    to[at] = from == nullptr ? factor * part.row(i)[j] : from[at] * (factor * part.row(i)[j]);
  });
}

// The inputs of a sample.
template <class T>
std::vector<const T*> rows_of(const std::vector<Matrix<const T>>& inputs, Index sample) {
  std::vector<const T*> rows;
  for (const Matrix<const T>& input : inputs) {
    rows.push_back(input.row(sample));
  }
  return rows;
}

// The keys and values of a group, as panels for the products that are asked for.
template <class T>
struct KeysAndValues {
  Packed<T> keys, values;            // q k^T, p v
  Packed<T> keys_back, values_back;  // c k, r v^T

  KeysAndValues(const Heads& of, const T* key, const T* value, bool forward, bool to_scores) {
    const Buffer<T> memory(of.keys * std::max(of.width, of.value_width));
    const Matrix<const T> rows{memory.data(), of.keys, of.width, of.width};
    gather(key, of.keys, of.width, of.k.row, of.k.col, T(1), memory.data());
    keys.of_rows(rows);
    if (to_scores) {
      keys_back.of_columns(rows);
    }
    const Matrix<const T> value_rows{memory.data(), of.keys, of.value_width, of.value_width};
    gather(value, of.keys, of.value_width, of.v.row, of.v.col, T(1), memory.data());
    if (forward) {
      values.of_columns(value_rows);
    }
    if (to_scores) {
      values_back.of_rows(value_rows);
    }
  }
};

template <class T>
struct ScoreBlock {
  Index first = 0, rows = 0, stride;  // queries
  std::size_t head = 0;
  Range open{0, 0};           // keys that are open to one of the rows at least, whole panels
  Buffer<T> queries, scores;  // queries times the scale; scores before anything is added
  Buffer<T> before_cap;       // scores before the cap, where there is one
  Buffer<T> powers;           // exp(score - most), 0 where closed
  Open of_row[kQueriesAtOnce];
  T share[kQueriesAtOnce];  // 1 / the sum of a row's powers, 0 where there are none

  explicit ScoreBlock(const Heads& of)
      : stride(padded_to_panels<T>(of.keys)),
        queries(kQueriesAtOnce * of.width),
        scores(kQueriesAtOnce * stride),
        before_cap(of.cap == 0 ? 0 : kQueriesAtOnce * stride),
        powers(kQueriesAtOnce * stride + kernels::kSpare) {}

  Index keys_end(Index keys) const { return std::min(open.last, keys); }
  Range panels() const { return {open.first / panel_width<T>(), open.last / panel_width<T>()}; }
  // 0 in the columns that other rows of the block are open to.
  void close_rest(Index i, T* row) const {
    const Open& own = of_row[i];
    const bool none = own.count() == 0;
    std::fill(row + open.first, row + (none ? open.last : own.first), T(0));
    std::fill(row + (none ? open.last : own.last), row + open.last, T(0));
  }
};

// Sums over all queries of a group, and memory for a block.
template <class T>
struct SumsOverQueries {
  ColumnSums<T> values, keys;          // p^T r, c^T q
  Buffer<T> relevance, scaled;         // c_out of a block; that times the share
  Buffer<T> coefficients, to_queries;  // of the scores; c k
  double of_row[kQueriesAtOnce];       // what a row's probabilities get
  kernels::Absorbed lost{};

  SumsOverQueries(const Heads& of, bool to_scores)
      : values(of.keys, of.value_width),
        keys(to_scores ? of.keys : 0, of.width),
        relevance(kQueriesAtOnce * of.value_width),
        scaled(kQueriesAtOnce * of.value_width),
        coefficients(to_scores ? kQueriesAtOnce * padded_to_panels<T>(of.keys) + kernels::kSpare : 0),
        to_queries(to_scores ? kQueriesAtOnce * padded_to_panels<T>(of.width) : 0) {}
};

}  // namespace pylrp
