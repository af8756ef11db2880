// Small matrices as packed panels, for a task that multiplies with them on its own: products with some of the panels
// and some of the reduction, and sums over the rows of both operands. For layers/attention.
#pragma once

#include <algorithm>
#include <vector>

#include "base/buffer.hpp"
#include "base/view.hpp"
#include "kernels/dispatch.hpp"
#include "products/blocking.hpp"

namespace pylrp {

template <class T>
Index panel_width() {
  return kernels::table<T>().tile_cols;
}
template <class T>
Index padded_to_panels(Index columns) {
  const Index width = panel_width<T>();
  return (columns + width - 1) / width * width;
}

struct Range {
  Index first, last;
};

// B for products x B.
template <class T>
class Packed {
 public:
  // B = matrix^T, or B = matrix.
  void of_rows(const Matrix<const T>& matrix) { pack(matrix, matrix.cols, matrix.rows, true); }
  void of_columns(const Matrix<const T>& matrix) { pack(matrix, matrix.rows, matrix.cols, false); }
  Range all() const { return {0, padded_to_panels<T>(columns_) / panel_width<T>()}; }

  // out = x B, for some panels and some steps of the reduction; x is read from the first of these on, rows of
  // `out` hold whole panels.
  void multiply(const T* x, Index x_stride, Index rows, Range panels, Range steps, T* out, Index out_stride) const {
    const kernels::Table<T>& kernel = kernels::table<T>();
    const Index width = panel_width<T>(), tiles = (rows + kernel.tile_rows - 1) / kernel.tile_rows;
    const T* at[kMostRows];
    if (steps.first >= steps.last) {
      for (Index i = 0; i < rows; ++i) {
        std::fill(out + i * out_stride + panels.first * width, out + i * out_stride + panels.last * width, T(0));
      }
    }
    for (Index k = steps.first; k < steps.last; k += kReductionBlock) {
      const Index count = std::min(kReductionBlock, steps.last - k);
      for (Index i = 0; i < rows; ++i) {
        at[i] = x + i * x_stride + k;
      }
      for (Index p = panels.first; p < panels.last; ++p) {
        for (Index t = 0; t < tiles; ++t) {
          const Index row = rows * t / tiles, height = rows * (t + 1) / tiles - row;
          kernel.tile_taps({.rows = static_cast<int>(height),
                            .halves = 2 * (columns_ - p * width) <= width ? 1 : 2,
                            .taps = 1,
                            .k = count,
                            .rows_at = at + row,
                            .panel = memory_.data() + p * depth_ * width + k * width,
                            .add = k > steps.first,
                            .out = out + row * out_stride + p * width,
                            .out_stride = out_stride});
        }
      }
    }
  }

  const T* panel(Index p) const { return memory_.data() + p * depth_ * panel_width<T>(); }

  static constexpr Index kMostRows = 64;

 private:
  void pack(const Matrix<const T>& matrix, Index depth, Index columns, bool rows) {
    const kernels::Table<T>& kernel = kernels::table<T>();
    const Index width = panel_width<T>();
    const kernels::Weights<T> plain{kernels::Read::kPlain, T(1), T(1)};
    depth_ = depth;
    columns_ = columns;
    memory_.reset(all().last * depth * width);
    for (Index p = 0; p < all().last; ++p) {
      const int count = static_cast<int>(std::min(width, columns - p * width));
      T* const to = memory_.data() + p * depth * width;
      if (rows) {
        kernel.pack_forward(count, depth, matrix.row(p * width), matrix.stride, plain, to, width);
      } else {
        kernel.pack_backward(count, depth, matrix.data + p * width, matrix.stride, plain, to, width);
      }
    }
  }

  Index depth_ = 0, columns_ = 0;
  Buffer<T> memory_;
};

// A sum of x^T y over blocks of rows of both: (columns of x, columns of y), panel by panel.
template <class T>
class ColumnSums {
 public:
  ColumnSums(Index rows, Index columns) : rows_(rows), columns_(columns), memory_(rows * padded_to_panels<T>(columns)) {
    std::fill_n(memory_.data(), rows * padded_to_panels<T>(columns), T(0));
  }
  // For some columns of x, which has kSpare entries behind its last row.
  void add(const Matrix<const T>& x, Range some, const Matrix<const T>& y) {
    const kernels::Table<T>& kernel = kernels::table<T>();
    const Index width = panel_width<T>(), count = some.last - some.first;
    const Index tiles = (count + kernel.tile_rows - 1) / kernel.tile_rows;
    right_.of_columns(y);
    left_.reset(x.rows * kernel.tile_rows + kernels::kSpare);
    for (Index t = 0; t < tiles; ++t) {
      const Index first = some.first + count * t / tiles, height = some.first + count * (t + 1) / tiles - first;
      if (kernel.tile_rows <= 8) {
        pack<8>(x, first, height);
      } else {
        pack<kernels::kSpare>(x, first, height);
      }
      for (Index p = 0; p < right_.all().last; ++p) {
        kernel.tile(static_cast<int>(height), x.rows, left_.data(), right_.panel(p), width, true,
                    memory_.data() + (p * rows_ + first) * width);
      }
    }
  }
  // body(first column, that panel's columns)
  template <class Body>
  void each_panel(Body body) const {
    const Index width = panel_width<T>();
    for (Index first = 0; first < columns_; first += width) {
      body(first, Matrix<const T>{memory_.data() + first * rows_, rows_, std::min(width, columns_ - first), width});
    }
  }

 private:
  // Columns of x as a left operand. Rows of a length that is known: what is too much the next one writes over.
  template <Index kLength>
  void pack(const Matrix<const T>& x, Index first, Index height) {
    for (Index i = 0; i < x.rows; ++i) {
      std::copy_n(x.row(i) + first, kLength, left_.data() + i * height);
    }
  }

  Index rows_, columns_;
  Buffer<T> memory_, left_;
  Packed<T> right_;
};

}  // namespace pylrp
