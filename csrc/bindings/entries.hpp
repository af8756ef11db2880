// Relevance that starts at single entries of a value, with weights. For top.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "bindings/array.hpp"
#include "bindings/layout.hpp"

namespace pylrp::bindings {

// places: int64 (entries, 2), the sample and the entry in the user's layout; weights: float64 (entries).
template <class T>
void begin_entries(const py::tuple& target, Matrix<const T> output, const Layout& layout, bool one, Matrix<T> top) {
  const Matrix<const std::int64_t> places = matrix<std::int64_t>(target[0], "the entries of a target");
  const Matrix<const double> weights = matrix<double>(target[1], "the weights of a target");
  if (places.cols != 2 || weights.rows != 1 || weights.cols != places.rows) {
    throw py::value_error("a target has a sample, an entry and a weight each");
  }
  for (Index i = 0; i < top.rows; ++i) {
    std::fill_n(top.row(i), top.cols, T(0));
  }
  std::vector<double> sums(static_cast<std::size_t>(top.rows));
  for (Index k = 0; k < places.rows; ++k) {
    const Index row = places.row(k)[0], entry = places.row(k)[1];
    if (row < 0 || row >= top.rows || entry < 0 || entry >= top.cols) {
      throw py::value_error("a target is not an entry of the output");
    }
    const Index at = layout.in_core(entry);
    const T start = static_cast<T>(weights.data[k]) * output.row(row)[at];
    top.row(row)[at] += start;
    sums[static_cast<std::size_t>(row)] += static_cast<double>(start);
  }
  for (Index i = 0; one && i < top.rows; ++i) {
    const double size = std::abs(sums[static_cast<std::size_t>(i)]);
    if (size != 0) {
      std::transform(top.row(i), top.row(i) + top.cols, top.row(i),
                     [&](T start) { return static_cast<T>(static_cast<double>(start) / size); });
    }
  }
}

}  // namespace pylrp::bindings
