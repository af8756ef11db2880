// Views: a pointer and a shape, no ownership. Every size is int64.
#pragma once

#include <cstdint>

namespace pylrp {

using Index = std::int64_t;

// (rows, cols), row i starts at data + i * stride; columns are contiguous.
template <class T>
struct Matrix {
  T* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  Index stride = 0;

  T* row(Index i) const { return data + i * stride; }
  explicit operator bool() const { return data != nullptr; }
  Matrix slice(Index first, Index count) const { return {row(first), count, cols, stride}; }
};

template <class T>
Matrix<const T> read_only(const Matrix<T>& m) {
  return {m.data, m.rows, m.cols, m.stride};
}

}  // namespace pylrp
