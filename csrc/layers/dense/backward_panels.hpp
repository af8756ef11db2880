// What packed operands of the backward pass give with a dense layer's weights, a panel of inputs at a time: for
// batch.cpp and coefficients.cpp, which pack their operands and take the sums in their own way.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/dispatch.hpp"
#include "products/matrix_product.hpp"

namespace pylrp {

// done(column, columns, row, rows, sums): the sums over the weight's rows are complete for these inputs and samples;
// sums(b), (rows, tile_cols), are those of output b of the products.
template <class T, class Done>
void backward_panels(Matrix<const T> weight, Index batch, const Tiles& tiles, const Grid& grid, const Left<T>& left,
                     const std::vector<Product<T>>& products, const Operands<T>& operands, const Threads& threads,
                     Done done) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index width = kernel.tile_cols, n_in = weight.cols;
  const Index backs = static_cast<Index>(products.size()), size = batch * width;
  const auto steps_of = [&](Index first, Index places) { return operands.steps(first, places, weight.rows); };
  const auto sum_of = [&](T* scratch, Index number, Index b) { return scratch + (number * backs + b) * size; };
  const bool in_place =
      !operands.rounded() && !left.has_lists() && (tiles.count <= kTilesInPlace || !meet_in_few_sets<T>(weight.stride));
  multiply_panels<T>(
      tiles, grid, left, products, operands.places(weight.rows), operands, threads, backs * size,
      [&](Index p, Index first, Index places, kernels::Weights<T> map, T* to, Index step) {
        if (in_place && map.read == kernels::Read::kPlain && (p + 1) * width <= n_in) {
          return Panel<T>{weight.row(first) + p * width, weight.stride};
        }
        const Index depth = steps_of(first, places);
        return packed_panel(operands, depth, to, step, [&](T* panel) {
          kernel.pack_backward(static_cast<int>(std::min(width, n_in - p * width)), depth,
                               weight.row(operands.step(first)) + p * width, weight.stride, map, panel, step);
        });
      },
      [&](Index begin, Index end, Index first, Index places) {
        const Index column = begin * width;
        return Matrix<const T>{weight.row(operands.step(first)) + column, steps_of(first, places),
                               std::min(end * width, n_in) - column, weight.stride};
      },
      [&](T* scratch, Index number, Index, Index b) { return sum_of(scratch, number, b); },
      [&](T* scratch, Index number, Index p, Index row, Index rows) {
        done(p * width, std::min(width, n_in - p * width), row, rows,
             [&](Index b) { return sum_of(scratch, number, b) + row * width; });
      });
}

}  // namespace pylrp
