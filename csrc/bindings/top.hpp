// The relevance at the value that is explained: of the top class, of a class asked for, or as given. For network.cpp.
#pragma once

#include <algorithm>
#include <cmath>

#include "bindings/entries.hpp"

namespace pylrp::bindings {

// The absolute value of a channel's sum over all positions, by which relevance is divided that starts at one; 1 where
// it is zero, then there is no relevance to divide.
template <class T>
T size_of_sum(const T* row, Index channel, const Layout& layout) {
  double sum = 0;
  layout.each_of_channel(channel, [&](Index at) { sum += static_cast<double>(row[at]); });
  return sum == 0 ? T(1) : static_cast<T>(std::abs(sum));
}

// Among the channels that are asked for: the top one; none, the sample has no relevance.
inline constexpr std::int64_t kTopChannel = -2, kNoChannel = -1;

// Writes the relevance at the start (a tuple: of single entries, see entries.hpp); returns the explained channels, or
// None where the relevance was given.
template <class T>
py::object begin_target(py::handle target, Matrix<const T> output, const Layout& layout, bool one, Matrix<T> top) {
  if (py::isinstance<py::tuple>(target)) {
    begin_entries(py::reinterpret_borrow<py::tuple>(target), output, layout, one, top);
    return py::none();
  }
  if (!target.is_none() && !py::isinstance<py::array_t<std::int64_t>>(target)) {
    const Matrix<const T> given = matrix<T>(target, "target");
    if (given.rows != top.rows || given.cols != top.cols) {
      throw py::value_error("the target's shape differs from the output's");
    }
    if (layout.same()) {
      for (Index i = 0; i < top.rows; ++i) {
        std::copy_n(given.row(i), top.cols, top.row(i));
      }
    } else {
      to_core(layout, given, top, Threads{});
    }
    return py::none();
  }
  py::array_t<std::int64_t> chosen(top.rows);
  std::int64_t* const classes = chosen.mutable_data();
  for (Index i = 0; i < top.rows; ++i) {
    const T* row = output.row(i);
    if (target.is_none()) {
      classes[i] = kTopChannel;
    } else {
      const auto array = py::reinterpret_borrow<py::array_t<std::int64_t>>(target);
      classes[i] = array.at(array.size() == 1 ? 0 : i);
    }
    if (classes[i] == kTopChannel) {
      classes[i] = std::max_element(row, row + output.cols) - row;
    }
    if (classes[i] == kNoChannel) {
      std::fill_n(top.row(i), top.cols, T(0));
      continue;
    }
    if (classes[i] < 0 || classes[i] >= layout.channels) {
      throw py::value_error("a target is not a class of the output");
    }
    std::fill_n(top.row(i), top.cols, T(0));
    const T divisor = one ? size_of_sum(row, classes[i], layout) : T(1);
    layout.each_of_channel(classes[i], [&](Index at) { top.row(i)[at] = row[at] / divisor; });
  }
  return std::move(chosen);
}

// The relevance at the start, (targets * batch, size), and the channels that were chosen, a target each.
template <class T>
struct Top {
  Buffer<T> values;
  py::list chosen;

  Top(const py::list& targets, Matrix<const T> output, const Layout& layout, bool one)
      : values(checked_product({output.rows, static_cast<Index>(targets.size()), layout.size()},
                               "the relevance at the top")) {
    const Matrix<T> all{values.data(), output.rows * static_cast<Index>(targets.size()), layout.size(), layout.size()};
    for (std::size_t t = 0; t < targets.size(); ++t) {
      chosen.append(
          begin_target(targets[t], output, layout, one, all.slice(static_cast<Index>(t) * output.rows, output.rows)));
    }
  }
};

}  // namespace pylrp::bindings
