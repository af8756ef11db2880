// Coefficients through a dense layer: c_in = W^T c_out, one product and nothing else. What the biases take is the sum
// of c b.
#include <algorithm>

#include "kernels/dispatch.hpp"
#include "layers/dense/backward_panels.hpp"
#include "layers/dense/dense.hpp"
#include "products/matrix_product.hpp"

namespace pylrp {
namespace {

// result(batch, n_in) = c(batch, n_out) W
template <class T>
void by_products(Matrix<const T> weight, Matrix<const T> c, Matrix<T> result, const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index width = kernel.tile_cols, n_in = weight.cols;
  const Tiles tiles(c.rows, kernel.tile_rows);
  const Grid grid((n_in + width - 1) / width, tiles.count, threads.count);
  const std::vector<Product<T>> products{{0, 0, weights_of<T>(WeightMap{})}};
  const Operands<T> operands(threads.bfloat16);
  const Index reduction = operands.places(weight.rows);
  const auto steps_of = [&](Index first, Index places) { return operands.steps(first, places, weight.rows); };
  Left<T> left(tiles, kernel.tile_rows, {grid.panels}, reduction, operands);
  const auto pieces = [&](Index, Index row, Index first, Index places, auto body) {
    const Index depth = steps_of(first, places);
    const T* x = c.row(row) + operands.step(first);
    Buffer<T> rounded;
    if (operands.rounded()) {
      rounded.reset(depth);
      operands.round_row(depth, x, rounded.data());
      x = rounded.data();
    }
    body(0, depth, x, 0);
  };
  left.choose(threads, pieces);
  left.pack(
      threads,
      [&](Index, Index row, Index rows, Index first, Index places, T* to) {
        const Index step = operands.step(first), depth = steps_of(first, places);
        operands.pack(depth, rows, to, [&](T* x) {
          kernel.pack_left(static_cast<int>(rows), depth, c.row(row) + step, c.stride, 0, x);
        });
      },
      pieces);
  backward_panels<T>(weight, c.rows, tiles, grid, left, products, operands, threads,
                     [&](Index column, Index cols, Index row, Index rows, auto sums) {
                       for (Index i = 0; i < rows; ++i) {
                         std::copy_n(sums(0) + i * width, cols, result.row(row + i) + column);
                       }
                     });
}

// The rule as the passes over single rows of weights read it: s = c / 1, and no input.
LoweredRule without_division() {
  LoweredRule rule;
  rule.groups.push_back({{}, {Term{Part::kOne, {MapKind::kOne, 1, 1}, 1}}, {}, 1, Mask::kAll, Guard::kSigned, 0});
  BackProduct back{0, {}, {}};
  back.factor[static_cast<std::size_t>(Part::kOne)] = 1;
  rule.back.push_back(back);
  return rule;
}

}  // namespace

template <class T>
void dense_coefficients(const DenseWeights<T>& layer, Matrix<const T> c, Matrix<T> result, kernels::Absorbed* absorbed,
                        const Threads& threads) {
  static const LoweredRule rule = without_division();
  DenseJob<T> job{layer, &rule, {}, nullptr, {}, {}, c, result, absorbed};
  const Threads some = threads_worth(c.rows * layer.weight.rows * layer.weight.cols, threads);
  if (rows_win(job)) {
    GroupConstants<T> ones;
    ones.groups.resize(1);
    ones.groups[0].base.reset(layer.weight.rows);
    std::fill_n(ones.groups[0].base.data(), layer.weight.rows, T(1));
    job.constants = &ones;
    relevance_by_rows(job, c.rows <= few_samples(layer.weight) ? threads : some);
  } else {
    const Index most = rows_of_part(layer.weight, std::max(layer.weight.rows, layer.weight.cols));
    const Index parts = std::max<Index>(1, (c.rows + most - 1) / most);
    for (Index part = 0; part < parts; ++part) {
      const Index begin = c.rows * part / parts, rows = c.rows * (part + 1) / parts - begin;
      by_products(layer.weight, c.slice(begin, rows), result.slice(begin, rows), some);
    }
  }
  for (Index i = 0; layer.bias != nullptr && i < c.rows; ++i) {
    absorbed[i].bias += kernels::table<T>().dot(layer.weight.rows, c.row(i), layer.bias);
  }
}

template void dense_coefficients<float>(const DenseWeights<float>&, Matrix<const float>, Matrix<float>,
                                        kernels::Absorbed*, const Threads&);
template void dense_coefficients<double>(const DenseWeights<double>&, Matrix<const double>, Matrix<double>,
                                         kernels::Absorbed*, const Threads&);

}  // namespace pylrp
