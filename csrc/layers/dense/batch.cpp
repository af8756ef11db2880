// Many samples: two products, packed panel by panel, for each sum of the rule.
//
//   forward    Z(batch, n_out)   = sum over taps of X_t rho_t(W)^T     epilogue: s = R / stab(z)
//   backward   R_in(batch, n_in) = sum over products of mix(a) * (S rho(W))
//
// Both are one loop, multiply_panels() in products/matrix_product.hpp.
#include <algorithm>
#include <cmath>
#include <functional>

#include "kernels/dispatch.hpp"
#include "layers/dense/backward_panels.hpp"
#include "layers/dense/cancelled.hpp"
#include "layers/dense/dense.hpp"
#include "products/matrix_product.hpp"
#include "products/samples_in_lanes.hpp"

namespace pylrp {
namespace {

constexpr Index kPartBytes = Index{8} << 20;  // for z and s, and for the packed left operand; else in several parts
// With samples enough to pack the weights once more for, less: all of a part's arrays are memory that a thread keeps,
// no fresh pages. 784-1000-1000-10, batch 1024, one thread: 39.1, 36.3, 36.5 and 38.2 ms with 8, 6, 4 and 3 MB;
// 4096-4096-4096-1000, batch 256, 168 ms, and 180 in two parts.
constexpr Index kKeptPartBytes = Index{5} << 20;
constexpr Index kManySamples = 256;
constexpr Index kPartProducts = Index{1} << 33;  // a part takes a tenth of a second: between parts we look for Ctrl-C

// done(panel, first row, rows); no template, which would compile all loops once more a caller.
using PanelDone = std::function<void(Index, Index, Index)>;

// Z_q(panels, batch, tile_cols) for all sums of a rule; done when a panel is complete.
template <class T>
void forward_products(const std::vector<Sum>& sums, Matrix<const T> input, Matrix<const T> weight, T* const* z,
                      const Threads& threads, const PanelDone& done) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index width = kernel.tile_cols, n_out = weight.rows;
  const Tiles tiles(input.rows, kernel.tile_rows);
  const Grid grid((n_out + width - 1) / width, tiles.count, threads.count);
  std::vector<Product<T>> products;
  std::vector<Part> parts;  // the operands: each part of the input once
  for (std::size_t q = 0; q < sums.size(); ++q) {
    for (const ProductTerm& tap : sums[q]) {
      const auto known = std::find(parts.begin(), parts.end(), tap.part);
      products.push_back({known - parts.begin(), static_cast<Index>(q), weights_of<T>(tap.map)});
      if (known == parts.end()) {
        parts.push_back(tap.part);
      }
    }
  }
  if (weight.cols == 0) {  // sums over nothing
    for (std::size_t q = 0; q < sums.size(); ++q) {
      std::fill_n(z[q], grid.panels * width * input.rows, T(0));
    }
  }
  std::vector<Index> panels(parts.size());  // that each operand meets
  for (const Product<T>& product : products) {
    panels[static_cast<std::size_t>(product.operand)] += grid.panels;
  }
  const Operands<T> operands(threads.bfloat16);
  const Index reduction = operands.places(weight.cols);
  const auto steps_of = [&](Index first, Index places) { return operands.steps(first, places, weight.cols); };
  Left<T> left(tiles, kernel.tile_rows, panels, reduction, operands);
  const auto sign = [&](Index operand) { return sign_of(parts[static_cast<std::size_t>(operand)]); };
  const auto fill = [&](Index operand, Index row, Index rows, Index first, Index places, T* to) {
    const Index step = operands.step(first), depth = steps_of(first, places);
    const bool magnitude = parts[static_cast<std::size_t>(operand)] == Part::kMagnitude;
    Buffer<T> magnitudes;  // a block of no entries would cost an allocation, too
    if (magnitude) {
      magnitudes.reset(rows * depth);
    }
    for (Index i = 0; magnitude && i < rows; ++i) {
      kernel.part_of(depth, input.row(row + i) + step, 0, magnitudes.data() + i * depth);
    }
    operands.pack(depth, rows, to, [&](T* x) {
      kernel.pack_left(static_cast<int>(rows), depth, magnitude ? magnitudes.data() : input.row(row) + step,
                       magnitude ? depth : input.stride, magnitude ? 0 : sign(operand), x);
    });
  };
  const auto pieces = [&](Index operand, Index row, Index first, Index depth, auto body) {
    const T* x = input.row(row) + first;
    const bool magnitude = parts[static_cast<std::size_t>(operand)] == Part::kMagnitude;
    Buffer<T> made;
    if (magnitude || operands.rounded()) {
      made.reset(depth);
    }
    if (magnitude) {
      kernel.part_of(depth, x, 0, made.data());
      x = made.data();
    }
    if (operands.rounded()) {
      operands.round_row(depth, x, made.data());
      x = made.data();
    }
    body(0, depth, x, sign(operand));
  };
  const auto out = [&](Index p, Index q) { return z[q] + p * width * input.rows; };
  left.choose(threads, pieces);
  if (input.rows <= kMostSamplesInLanes && !operands.rounded() && !left.has_lists() && reduction > 0 &&
      !products.empty()) {
    const SamplesInLanes<T> samples(static_cast<Index>(parts.size()), input.rows, reduction, threads, fill);
    SampleProducts(weight, samples, products, out, done).run(threads);
    return;
  }
  left.pack(threads, fill, pieces);
  multiply_panels<T>(
      tiles, grid, left, products, products.empty() ? 0 : reduction, operands, threads, 0,
      [&](Index p, Index first, Index places, kernels::Weights<T> map, T* to, Index step) {
        const Index depth = steps_of(first, places);
        return packed_panel(operands, depth, to, step, [&](T* panel) {
          kernel.pack_forward(static_cast<int>(std::min(width, n_out - p * width)), depth,
                              weight.row(p * width) + operands.step(first), weight.stride, map, panel, step);
        });
      },
      [&](Index begin, Index end, Index first, Index places) {
        const Index row = begin * width;
        return Matrix<const T>{weight.row(row) + operands.step(first), std::min(end * width, n_out) - row,
                               steps_of(first, places), weight.stride};
      },
      [&](T*, Index, Index p, Index q) { return out(p, q); },
      [&](T*, Index, Index p, Index row, Index rows) { done(p, row, rows); });
}

// R_in from S_g(panels, batch, tile_cols).
template <class T>
void backward_products(const DenseJob<T>& job, Matrix<const T> input, T* const* s, Matrix<T> result,
                       const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const LoweredRule& rule = *job.rule;
  const Matrix<const T> weight = job.layer.weight;
  const Index width = kernel.tile_cols, n_in = weight.cols, batch = result.rows;
  const Tiles tiles(batch, kernel.tile_rows);
  const Grid grid((n_in + width - 1) / width, tiles.count, threads.count);
  std::vector<Product<T>> products;
  for (const BackProduct& back : rule.back) {
    products.push_back({back.group, static_cast<Index>(products.size()), weights_of<T>(back.map)});
  }
  std::vector<Index> panels(rule.groups.size());  // that each operand meets
  for (const Product<T>& product : products) {
    panels[static_cast<std::size_t>(product.operand)] += grid.panels;
  }
  const Operands<T> operands(threads.bfloat16);
  const Index reduction = operands.places(weight.rows);
  const auto steps_of = [&](Index first, Index places) { return operands.steps(first, places, weight.rows); };
  Left<T> left(tiles, kernel.tile_rows, panels, reduction, operands);
  const auto pieces = [&](Index g, Index row, Index first, Index depth, auto body) {
    Buffer<T> rounded;
    if (operands.rounded()) {
      rounded.reset(width);
    }
    for (Index k = 0; k < depth; k += width) {
      const Index count = std::min(width, depth - k);
      const T* x = s[g] + (first + k) * batch + row * width;
      if (operands.rounded()) {
        operands.round_row(count, x, rounded.data());
        x = rounded.data();
      }
      body(k, count, x, 0);
    }
  };
  left.choose(threads, pieces);
  left.pack(
      threads,
      [&](Index g, Index row, Index rows, Index first, Index places, T* to) {
        const Index step = operands.step(first), depth = steps_of(first, places);  // whole panels but for the last
        operands.pack(depth, rows, to, [&](T* x) {
          for (Index k = 0; k < depth; k += width) {
            kernel.pack_left(static_cast<int>(rows), std::min(width, depth - k),
                             s[g] + (step + k) * batch + row * width, width, 0, x + k * rows);
          }
        });
      },
      pieces);
  backward_panels<T>(weight, batch, tiles, grid, left, products, operands, threads,
                     [&](Index column, Index cols, Index row, Index rows, auto sums) {
                       kernels::Mixed<T> mixed = mixed_of<T>(rule);
                       for (Index b = 0; b < static_cast<Index>(products.size()); ++b) {
                         mixed.acc[b] = sums(b);
                       }
                       kernel.accumulate({.rows = rows,
                                          .cols = cols,
                                          .mixed = mixed,
                                          .acc_stride = width,
                                          .a = input ? input.row(row) + column : nullptr,
                                          .a_stride = input.stride,
                                          .low = job.bounds.low ? job.bounds.low + column : nullptr,
                                          .high = job.bounds.high ? job.bounds.high + column : nullptr,
                                          .bound_stride = 0,
                                          .add = false,
                                          .out = result.row(row) + column,
                                          .out_stride = result.stride});
                     });
}

// Rows [begin, begin + batch) of a job; work: z and s, (panels, batch, tile_cols) each, in the same memory. cancelled:
// the rule's first sum is the output, biases included, the second |W| |a| with the bias's size; false: too many of its
// entries cancel.
template <class T>
bool relevance_of_part(const DenseJob<T>& job, const kernels::Shares<T>& plan, Index begin, Index batch, T* const* work,
                       Cancelled<T>* cancelled, const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Matrix<const T> relevance = job.relevance.slice(begin, batch);
  const Matrix<const T> input = job.input ? job.input.slice(begin, batch) : Matrix<const T>{nullptr, batch, 0, 0};
  const Index width = kernel.tile_cols, n_out = job.layer.weight.rows;
  const Index panels = (n_out + width - 1) / width;
  std::vector<kernels::Absorbed> absorbed(static_cast<std::size_t>(job.absorbed ? panels * batch : 0));
  // z: of the first column and row, z_panel entries further a panel.
  const auto share = [&](Index p, Index row, Index rows, const T* const* z, Index z_panel, Index z_stride) {
    const T* z_at[kernels::kMaxSums] = {};
    T* s_at[kernels::kMaxGroups] = {};
    for (int q = 0; q < plan.sums; ++q) {
      z_at[q] = z[q] + p * z_panel + row * z_stride;
    }
    for (int g = 0; g < plan.groups; ++g) {
      s_at[g] = work[g] + (p * batch + row) * width;
    }
    const kernels::Shares<T> of_panel = shares_at_column(plan, p * width);
    const kernels::SharesOfRows<T> args{
        .rows = rows,
        .cols = std::min(width, n_out - p * width),
        .rule = of_panel,
        .z = z_at,
        .z_stride = z_stride,
        .r = relevance.row(row) + p * width,
        .r_stride = relevance.stride,
        .s = s_at,
        .s_stride = width,
        .ledger = job.absorbed ? &absorbed[static_cast<std::size_t>(p * batch + row)] : nullptr,
        .ledger_step = 1};
    if (cancelled != nullptr) {
      cancelled->shares(args, row, p * width);
    } else {
      kernel.shares(args);
    }
  };
  if (cancelled == nullptr && output_is_sum(job)) {
    const T* const output[] = {job.output.row(begin)};
    parallel_for(panels, threads, [&](Index p) { share(p, 0, batch, output, width, job.output.stride); });
  } else if (cancelled != nullptr) {
    forward_products<T>({job.rule->sums[1]}, input, job.layer.weight, work + 1, threads,
                        [&](Index p, Index row, Index rows) {
                          const Index column = p * width, cols = std::min(width, n_out - column);
                          for (Index i = row; i < row + rows; ++i) {
                            std::copy_n(job.output.row(begin + i) + column, cols, work[0] + (p * batch + i) * width);
                            T* const size = work[1] + (p * batch + i) * width;
                            for (Index j = 0; job.layer.bias != nullptr && j < cols; ++j) {
                              size[j] += std::abs(job.layer.bias[column + j]);
                            }
                          }
                          share(p, row, rows, work, batch * width, width);
                        });
  } else {
    forward_products<T>(job.rule->sums, input, job.layer.weight, work, threads,
                        [&](Index p, Index row, Index rows) { share(p, row, rows, work, batch * width, width); });
  }
  if (cancelled != nullptr && cancelled->too_many()) {
    return false;
  }
  for (std::size_t i = 0; i < absorbed.size(); ++i) {
    kernels::Absorbed& total = job.absorbed[begin + static_cast<Index>(i) % batch];
    add_absorbed(absorbed[i], &total);
  }
  backward_products<T>(job, input, work, job.result.slice(begin, batch), threads);
  if (cancelled != nullptr) {
    cancelled->send(threads);
  }
  return true;
}

// Denominators of a rule. sum_has_bias: the first of its sums holds all of it.
template <class T>
kernels::Shares<T> plan_of(const LoweredRule& rule, const GroupConstants<T>& constants, const T* plain_base,
                           bool sum_has_bias) {
  const T* base[kernels::kMaxGroups] = {};
  const T* bias[kernels::kMaxGroups] = {};
  for (std::size_t g = 0; g < rule.groups.size(); ++g) {
    bias[g] = constants.groups[g].bias.data();
    base[g] = constants.groups[g].base.data() ? constants.groups[g].base.data() : (sum_has_bias ? nullptr : bias[g]);
  }
  return shares_of<T>(rule, base, bias, sum_has_bias ? nullptr : plain_base);
}

// `arrays` buffers (panels, batch, tile_cols) one after the other.
template <class T>
struct PanelArrays {
  Buffer<T> memory;
  T* of[kernels::kMaxSums > kernels::kMaxGroups ? kernels::kMaxSums : kernels::kMaxGroups] = {};

  PanelArrays(Index arrays, Index batch, Index columns) {
    const Index width = kernels::table<T>().tile_cols;
    const Index size = (columns + width - 1) / width * width * batch;
    memory.reset(arrays * size);
    for (Index i = 0; i < arrays; ++i) {
      of[i] = memory.data() + i * size;
    }
  }
};

}  // namespace

template <class T>
Index rows_of_part(Matrix<const T> weight, Index wide) {
  const Index products = std::max<Index>(1, weight.rows * weight.cols);
  const Index memory = std::max<Index>(1, wide * Index(sizeof(T)));
  const Index kept = std::max(kManySamples, kKeptPartBytes / memory);
  return std::max<Index>(64, std::min({kPartProducts / products, kPartBytes / memory, kept}));
}

template <class T>
void relevance_by_products(const DenseJob<T>& job, const Threads& threads) {
  const LoweredRule& rule = *job.rule;
  const Matrix<const T> weight = job.layer.weight;
  if (rule.back.empty() || weight.rows == 0) {
    for (Index i = 0; i < job.result.rows; ++i) {
      std::fill(job.result.row(i), job.result.row(i) + job.result.cols, T(0));
    }
    return;
  }
  GroupConstants<T> own;
  const GroupConstants<T>* constants = job.constants;
  if (constants == nullptr) {
    own = prepare_dense(job.layer, rule, job.bounds, threads);
    constants = &own;
  }
  const kernels::Shares<T> plan = plan_of(rule, *constants, job.layer.bias, output_is_sum(job));
  // In words of 16 bits the shares would lose what is to cancel on the way back.
  const bool by_magnitude =
      job.magnitudes != nullptr && job.output && !(threads.bfloat16 && job.magnitudes->may_cancel);
  DenseJob<T> least = job;
  kernels::Shares<T> least_plan{};
  if (by_magnitude) {
    least.rule = job.magnitudes;
    least_plan = plan_of<T>(*least.rule, *job.magnitude_constants, nullptr, true);
  }
  const Index arrays = static_cast<Index>(std::max({rule.sums.size(), rule.groups.size(), least.rule->sums.size()}));
  const Index batch = job.relevance.rows;
  const Index most = rows_of_part(weight, std::max(arrays * weight.rows, 2 * weight.cols));
  const Index parts = std::max<Index>(1, (batch + most - 1) / most);
  const PanelArrays<T> work(arrays, (batch + parts - 1) / parts, weight.rows);
  for (Index part = 0; part < parts; ++part) {
    const Index begin = batch * part / parts, rows = batch * (part + 1) / parts - begin;
    if (by_magnitude) {
      Cancelled<T> cancelled(job, plan, begin, rows);
      if (relevance_of_part(least, least_plan, begin, rows, work.of, &cancelled, threads)) {
        continue;
      }
    }
    relevance_of_part<T>(job, plan, begin, rows, work.of, nullptr, threads);
  }
}

template <class T>
void forward_by_products(const DenseWeights<T>& layer, Matrix<const T> input, Matrix<T> output,
                         const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const std::vector<Sum> sums{{ProductTerm{Part::kInput, {}}}};
  const Index width = kernel.tile_cols,
              most = rows_of_part(layer.weight, std::max(layer.weight.rows, layer.weight.cols));
  const Index parts = std::max<Index>(1, (input.rows + most - 1) / most);
  const PanelArrays<T> work(1, (input.rows + parts - 1) / parts, layer.weight.rows);
  for (Index i = 0; i < parts; ++i) {
    const Index begin = input.rows * i / parts, batch = input.rows * (i + 1) / parts - begin;
    const Matrix<T> part = output.slice(begin, batch);
    forward_products<T>(sums, input.slice(begin, batch), layer.weight, work.of, threads,
                        [&](Index p, Index first_row, Index rows) {
                          const Index column = p * width, cols = std::min(width, part.cols - column);
                          for (Index row = first_row; row < first_row + rows; ++row) {
                            const T* const sum = work.of[0] + (p * batch + row) * width;
                            T* const out = part.row(row) + column;
                            for (Index j = 0; j < cols; ++j) {
                              out[j] = sum[j] + (layer.bias ? layer.bias[column + j] : T(0));
                            }
                          }
                        });
  }
}

template Index rows_of_part<float>(Matrix<const float>, Index);
template Index rows_of_part<double>(Matrix<const double>, Index);
template void relevance_by_products<float>(const DenseJob<float>&, const Threads&);
template void relevance_by_products<double>(const DenseJob<double>&, const Threads&);
template void forward_by_products<float>(const DenseWeights<float>&, Matrix<const float>, Matrix<float>,
                                         const Threads&);
template void forward_by_products<double>(const DenseWeights<double>&, Matrix<const double>, Matrix<double>,
                                          const Threads&);

}  // namespace pylrp
