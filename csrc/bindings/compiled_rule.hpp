// What the bindings of relevance and of networks share: rules with their bounds, answers as NumPy arrays.
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "base/parallel.hpp"
#include "bindings/array.hpp"
#include "engine/chain.hpp"
#include "kernels/dispatch.hpp"

namespace pylrp::bindings {

// The bounds (low, high) or None of a layer; complains where the rule reads what is not there.
template <class T>
Bounds<T> bounds_of(py::handle pair, const CompiledRule& rule, Index width) {
  Bounds<T> bounds;
  if (!pair.is_none()) {
    const auto fields = pair.cast<py::tuple>();
    bounds = {vector_or_null<T>(fields[0], width, "low"), vector_or_null<T>(fields[1], width, "high")};
  }
  const LoweredRule& lowered = rule.any();
  if ((lowered.reads(Part::kLow) && bounds.low == nullptr) || (lowered.reads(Part::kHigh) && bounds.high == nullptr)) {
    throw py::value_error("a rule that reads bounds has none");
  }
  return bounds;
}

// A new array of shape (width) for a single sample, else (batch, width), and the view of it.
template <class T>
py::array_t<T> new_array(bool single, Index batch, Index width, Matrix<T>* view) {
  auto array = single ? py::array_t<T>(width) : py::array_t<T>({batch, width});
  *view = {array.mutable_data(), batch, width, width};
  return array;
}

// kHasNegative and kNotFinite of all rows.
template <class T>
int scan_rows(Matrix<const T> view) {
  int flags = 0;
  for (Index i = 0; i < view.rows; ++i) {
    flags |= kernels::table<T>().scan(view.cols, view.row(i));
  }
  return flags;
}
// The same by all threads: half a megabyte a task.
template <class T>
int scan_rows(Matrix<const T> view, const Threads& threads) {
  const Index rows = std::max<Index>(1, (Index{1} << 19) / std::max<Index>(1, view.cols * Index{sizeof(T)}));
  std::atomic<int> flags{0};
  parallel_for((view.rows + rows - 1) / rows, threads, [&](Index task) {
    flags |= scan_rows(view.slice(task * rows, std::min(rows, view.rows - task * rows)));
  });
  return flags;
}
template <class T>
int scan_rows(Matrix<T> view) {
  return scan_rows<T>(Matrix<const T>{view.data, view.rows, view.cols, view.stride});
}

}  // namespace pylrp::bindings
