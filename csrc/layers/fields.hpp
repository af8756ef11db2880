// A layer's description, as its maker reads it: named numbers and arrays. The bindings read Python's; nothing here
// knows where they come from.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "base/view.hpp"

namespace pylrp {

// Each function throws an exception where the field is missing or something else.
template <class T>
class Fields {
 public:
  // Which entry of nested lists: {2, 0} is the first of the third.
  using Path = std::initializer_list<std::size_t>;

  virtual ~Fields() = default;
  virtual Index integer(const char* name, Path at = {}) const = 0;
  virtual std::vector<Index> integers(const char* name, Path at = {}) const = 0;
  virtual double real(const char* name) const = 0;
  virtual std::vector<double> reals(const char* name) const = 0;
  virtual bool flag(const char* name) const = 0;
  virtual std::string text(const char* name, Path at = {}) const = 0;
  // Is it there, and not none?
  virtual bool has(const char* name) const = 0;

  // Used in place: they live as long as the layer.
  virtual Matrix<const T> matrix(const char* name) const = 0;
  // Of `size` entries, or null where there is none.
  virtual const T* vector_or_null(const char* name, Index size) const = 0;
  // Lives as long as this.
  virtual Matrix<const std::int32_t> table(const char* name) const = 0;

  std::vector<T> vector(const char* name) const {  // a copy
    const Matrix<const T> view = matrix(name);
    return std::vector<T>(view.data, view.data + view.rows * view.cols);
  }
};

}  // namespace pylrp
