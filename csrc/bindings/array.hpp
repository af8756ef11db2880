// NumPy arrays as views. Python's side has settled dtype and layout; what still does not fit is refused here.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "base/error.hpp"
#include "base/view.hpp"

namespace pylrp::bindings {

namespace py = pybind11;

template <class T>
py::array checked(py::handle object, const char* what) {
  if (!py::isinstance<py::array>(object)) {
    throw py::type_error(std::string(what) + " is not a NumPy array");
  }
  auto array = py::reinterpret_borrow<py::array>(object);
  const py::dtype want = py::dtype::of<T>();
  const bool aligned = (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
  if (!array.dtype().is(want) && !array.dtype().equal(want)) {
    throw py::type_error(std::string(what) + " has the wrong dtype");
  }
  const auto n = array.ndim();
  const auto item = static_cast<py::ssize_t>(sizeof(T));
  const bool fits = array.size() == 0 ||  // NumPy gives empty arrays any strides
                    (aligned && (array.shape(n - 1) == 1 || array.strides(n - 1) == item) &&
                     (n == 1 || array.strides(0) % item == 0));
  if (n < 1 || n > 2 || !fits) {
    throw py::type_error(std::string(what) + " is not an aligned array with contiguous rows");
  }
  return array;
}

// A vector (n) counts as one row.
template <class T>
Matrix<const T> matrix(py::handle object, const char* what) {
  const py::array array = checked<T>(object, what);
  const auto* data = static_cast<const T*>(array.data());
  if (array.ndim() == 1) {
    return {data, 1, array.shape(0), array.shape(0)};
  }
  return {data, array.shape(0), array.shape(1), array.strides(0) / static_cast<py::ssize_t>(sizeof(T))};
}

// None is a null pointer.
template <class T>
const T* vector_or_null(py::handle object, Index size, const char* what) {
  if (object.is_none()) {
    return nullptr;
  }
  const Matrix<const T> view = matrix<T>(object, what);
  if (view.rows != 1 || view.cols != size) {
    throw py::value_error(std::string(what) + " has " + std::to_string(view.cols) + " entries, expected " +
                          std::to_string(size));
  }
  return view.data;
}

}  // namespace pylrp::bindings
