// What the bindings of relevance and of networks share: rules with their bounds, answers as NumPy arrays.
#pragma once

#include <vector>

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
template <class T>
int scan_rows(Matrix<T> view) {
  return scan_rows<T>(Matrix<const T>{view.data, view.rows, view.cols, view.stride});
}

}  // namespace pylrp::bindings
