// Many samples: two products, packed panel by panel, for each sum of the rule.
//
//   forward    Z(batch, n_out)  = sum over taps of X_t rho_t(W)^T     epilogue: s = R / stab(z)
//   backward   R_in(batch, n_in) = sum over products of mix(a) * (S rho(W))
//
// A task owns a range of columns and walks the reduction in blocks of kDepth: the left operand of a block is packed
// once and stays in the L2 cache, a panel of W is packed just before its tiles and dropped after them. Which task
// computes a column does not change the order of its sums.
#include <algorithm>

#include "kernels/dispatch.hpp"
#include "layers/dense.hpp"

namespace pylrp {
namespace {

constexpr Index kDepth = 256;                   // of the reduction, a block
constexpr Index kShareBytes = Index{12} << 20;  // for z and s: larger batches go in several parts
constexpr int kMaxTile = 16 * 64;               // rows times columns, of any instruction set

Index rounded_up(Index n, Index to) { return (n + to - 1) / to * to; }

// The rows of the left operand in tiles of nearly equal height.
struct Tiles {
  Index rows, count;
  Tiles(Index rows_, int most) : rows(rows_), count((rows_ + most - 1) / most) {}
  Index begin(Index t) const { return rows * t / count; }
};

// Tasks over (rows, panels): columns are split first, rows only where there are fewer panels than threads.
struct Grid {
  Index panels, tiles, across, down;
  Grid(Index panels_, Index tiles_, int threads) : panels(panels_), tiles(tiles_) {
    across = std::clamp<Index>(threads, 1, std::max<Index>(panels, 1));
    down = std::clamp<Index>(threads / across, 1, std::max<Index>(tiles, 1));
  }
  Index tasks() const { return across * down; }
  Index panel_begin(Index task) const { return panels * (task % across) / across; }
  Index panel_end(Index task) const { return panels * (task % across + 1) / across; }
  Index tile_begin(Index task) const { return tiles * (task / across) / down; }
  Index tile_end(Index task) const { return tiles * (task / across + 1) / down; }
};

template <class T>
struct Left {
  Matrix<const T> x;
  int part;  // 0 as it is, +1, -1
};

// One task's packing space and the loop over its tiles.
template <class T>
class Packed {
 public:
  Packed(const kernels::Table<T>& kernel, const Tiles& tiles, Index operands)
      : kernel_(kernel),
        tiles_(tiles),
        operands_(operands),
        left_(std::max<Index>(1, operands) * tiles.rows * kDepth),
        panel_(kDepth * kernel.tile_cols) {}

  void pack_left(Index operand, const Left<T>& left, Index first, Index depth, Index tile_begin, Index tile_end) {
    for (Index t = tile_begin; t < tile_end; ++t) {
      const Index row = tiles_.begin(t);
      kernel_.pack_left(static_cast<int>(tiles_.begin(t + 1) - row), depth, left.x.row(row) + first, left.x.stride,
                        left.part, left_.data() + (operand * tiles_.rows + row) * kDepth);
    }
  }
  T* panel() const { return panel_.data(); }

  // each(row, rows, acc): acc(rows, tile_cols) is the product of the panel with these rows of the operand.
  template <class Each>
  void multiply(Index operand, Index depth, Index tile_begin, Index tile_end, Each each) const {
    alignas(64) T acc[kMaxTile];
    for (Index t = tile_begin; t < tile_end; ++t) {
      const Index row = tiles_.begin(t), rows = tiles_.begin(t + 1) - row;
      kernel_.tile(static_cast<int>(rows), depth, left_.data() + (operand * tiles_.rows + row) * kDepth, panel_.data(),
                   acc);
      each(row, rows, acc);
    }
  }

 private:
  const kernels::Table<T>& kernel_;
  Tiles tiles_;
  Index operands_;
  Buffer<T> left_, panel_;
};

constexpr int part_sign(Part part) { return part == Part::kPositive ? 1 : (part == Part::kNegative ? -1 : 0); }

// target (+)= acc, tile by tile.
template <class T>
void add_tile(const kernels::Table<T>& kernel, Index rows, Index cols, const T* acc, bool add, T* target,
              Index stride) {
  kernel.accumulate(rows, cols, acc, kernel.tile_cols, nullptr, 0, nullptr, nullptr, {0, 0, 0, 1, 0, 0}, add, target,
                    stride);
}

// Z_q += X rho(W)^T for all sums of a rule; after the last block of the reduction done(panel columns, rows) is called.
template <class T, class Done>
void forward_products(const std::vector<Sum>& sums, Matrix<const T> input, Matrix<const T> weight, T* const* z,
                      Index z_stride, const Threads& threads, Done done) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index width = kernel.tile_cols, n_out = weight.rows, n_in = weight.cols;
  const Tiles tiles(input.rows, kernel.tile_rows);
  const Grid grid((n_out + width - 1) / width, tiles.count, threads.count);
  Index taps = 0;
  for (const Sum& sum : sums) {
    taps += static_cast<Index>(sum.size());
  }
  std::vector<Packed<T>> space;
  for (Index i = 0; i < grid.tasks(); ++i) {
    space.emplace_back(kernel, tiles, taps);
  }
  parallel_for(grid.tasks(), threads, [&](Index task) {
    Packed<T>& packed = space[static_cast<std::size_t>(task)];
    const Index tile_begin = grid.tile_begin(task), tile_end = grid.tile_end(task);
    // At least one round, so that sums over nothing are zero and `done` is called.
    for (Index first = 0; first == 0 || first < n_in; first += kDepth) {
      const Index depth = std::min(kDepth, n_in - first);
      Index operand = 0;
      for (const Sum& sum : sums) {
        for (const Tap& tap : sum) {
          packed.pack_left(operand++, {input, part_sign(tap.part)}, first, depth, tile_begin, tile_end);
        }
      }
      for (Index p = grid.panel_begin(task); p < grid.panel_end(task); ++p) {
        const Index column = p * width, cols = std::min(width, n_out - column);
        operand = 0;
        for (std::size_t q = 0; q < sums.size(); ++q) {
          bool add = first > 0;
          for (const Tap& tap : sums[q]) {
            kernel.pack_forward(static_cast<int>(cols), depth, weight.row(column) + first, weight.stride,
                                weights_of<T>(tap.map), packed.panel());
            packed.multiply(operand++, depth, tile_begin, tile_end, [&](Index row, Index rows, const T* acc) {
              add_tile(kernel, rows, cols, acc, add, z[q] + row * z_stride + column, z_stride);
            });
            add = true;
          }
        }
        if (first + kDepth >= n_in) {
          const Index row = tiles.begin(tile_begin);
          done(p, column, cols, row, tiles.begin(tile_end) - row);
        }
      }
    }
  });
}

template <class T>
void backward_products(const DenseJob<T>& job, Matrix<const T> input, T* const* s, Index s_stride, Index batch,
                       Matrix<T> result, const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const LoweredRule& rule = *job.rule;
  const Matrix<const T> weight = job.layer.weight;
  const Index width = kernel.tile_cols, n_out = weight.rows, n_in = weight.cols;
  const Tiles tiles(batch, kernel.tile_rows);
  const Grid grid((n_in + width - 1) / width, tiles.count, threads.count);
  std::vector<Packed<T>> space;
  for (Index i = 0; i < grid.tasks(); ++i) {
    space.emplace_back(kernel, tiles, static_cast<Index>(rule.groups.size()));
  }
  parallel_for(grid.tasks(), threads, [&](Index task) {
    Packed<T>& packed = space[static_cast<std::size_t>(task)];
    const Index tile_begin = grid.tile_begin(task), tile_end = grid.tile_end(task);
    for (Index first = 0; first < n_out; first += kDepth) {
      const Index depth = std::min(kDepth, n_out - first);
      for (std::size_t g = 0; g < rule.groups.size(); ++g) {
        packed.pack_left(static_cast<Index>(g), {{s[g], batch, n_out, s_stride}, 0}, first, depth, tile_begin,
                         tile_end);
      }
      for (Index p = grid.panel_begin(task); p < grid.panel_end(task); ++p) {
        const Index column = p * width, cols = std::min(width, n_in - column);
        bool add = first > 0;
        for (const BackProduct& back : rule.back) {
          kernel.pack_backward(static_cast<int>(cols), depth, weight.row(first) + column, weight.stride,
                               weights_of<T>(back.map), packed.panel());
          const kernels::Mix<T> mix = mix_of<T>(back);
          packed.multiply(back.group, depth, tile_begin, tile_end, [&](Index row, Index rows, const T* acc) {
            kernel.accumulate(rows, cols, acc, width, input ? input.row(row) + column : nullptr, input.stride,
                              job.bounds.low ? job.bounds.low + column : nullptr,
                              job.bounds.high ? job.bounds.high + column : nullptr, mix, add, result.row(row) + column,
                              result.stride);
          });
          add = true;
        }
      }
    }
  });
}

// shares() over some columns and rows.
template <class T>
kernels::Shares<T> at_column(kernels::Shares<T> plan, Index column) {
  for (int g = 0; g < plan.groups; ++g) {
    plan.group[g].base += plan.group[g].base ? column : 0;
    plan.group[g].bias += plan.group[g].bias ? column : 0;
  }
  plan.plain_base += plan.plain_base ? column : 0;
  return plan;
}

template <class T>
void relevance_of_part(const DenseJob<T>& job, const kernels::Shares<T>& plan, Index begin, Index batch, Index arrays,
                       T* memory, Index stride, const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Matrix<const T> relevance = job.relevance.slice(begin, batch);
  const Matrix<const T> input = job.input ? job.input.slice(begin, batch) : job.input;
  const Index width = kernel.tile_cols, n_out = job.layer.weight.rows;
  const Index panels = (n_out + width - 1) / width;
  T* work[kernels::kMaxSums > kernels::kMaxGroups ? kernels::kMaxSums : kernels::kMaxGroups] = {};
  for (Index i = 0; i < arrays; ++i) {
    work[i] = memory + i * batch * stride;
  }
  std::vector<kernels::Absorbed> absorbed(static_cast<std::size_t>(job.absorbed ? panels * batch : 0));
  const auto share_panel = [&](const T* const* z, Index z_stride, Index p, Index column, Index cols, Index row,
                               Index rows) {
    const T* z_at[kernels::kMaxSums] = {};
    T* s_at[kernels::kMaxGroups] = {};
    for (int q = 0; q < plan.sums; ++q) {
      z_at[q] = z[q] + row * z_stride + column;
    }
    for (int g = 0; g < plan.groups; ++g) {
      s_at[g] = work[g] + row * stride + column;
    }
    kernel.shares(rows, cols, at_column(plan, column), z_at, z_stride, relevance.row(row) + column, relevance.stride,
                  s_at, stride, job.absorbed ? &absorbed[static_cast<std::size_t>(p * batch + row)] : nullptr);
  };
  if (output_is_sum(job)) {
    const T* const output[] = {job.output.row(begin)};
    parallel_for(panels, threads, [&](Index p) {
      share_panel(output, job.output.stride, p, p * width, std::min(width, n_out - p * width), 0, batch);
    });
  } else {
    forward_products<T>(job.rule->sums, input ? input : Matrix<const T>{nullptr, batch, 0, 0}, job.layer.weight, work,
                        stride, threads, [&](Index p, Index column, Index cols, Index row, Index rows) {
                          share_panel(work, stride, p, column, cols, row, rows);
                        });
  }
  for (std::size_t i = 0; i < absorbed.size(); ++i) {
    kernels::Absorbed& total = job.absorbed[begin + static_cast<Index>(i) % batch];
    total.bias += absorbed[i].bias;
    total.stabilizer += absorbed[i].stabilizer;
    total.dead += absorbed[i].dead;
  }
  backward_products<T>(job, input, work, stride, batch, job.result.slice(begin, batch), threads);
}

}  // namespace

template <class T>
void relevance_by_products(const DenseJob<T>& job, const Threads& threads) {
  const LoweredRule& rule = *job.rule;
  if (rule.back.empty() || job.layer.weight.rows == 0) {
    for (Index i = 0; i < job.result.rows; ++i) {
      std::fill(job.result.row(i), job.result.row(i) + job.result.cols, T(0));
    }
    return;
  }
  DenseConstants<T> own;
  const DenseConstants<T>* constants = job.constants;
  if (constants == nullptr) {
    own = prepare_dense(job.layer, rule, job.bounds, threads);
    constants = &own;
  }
  const bool reuse = output_is_sum(job);
  const T* base[kernels::kMaxGroups] = {};
  const T* bias[kernels::kMaxGroups] = {};
  for (std::size_t g = 0; g < rule.groups.size(); ++g) {
    bias[g] = constants->groups[g].bias.data();
    base[g] = constants->groups[g].base.data() ? constants->groups[g].base.data() : (reuse ? nullptr : bias[g]);
  }
  const kernels::Shares<T> plan = shares_of<T>(rule, base, bias, job.layer.bias);
  const Index arrays = static_cast<Index>(std::max(rule.sums.size(), rule.groups.size()));
  // 16 elements of padding keep rows of a power of two from falling on the same cache sets.
  const Index stride = rounded_up(job.layer.weight.rows, 16) + 16;
  const Index batch = job.relevance.rows;
  const Index most = std::max<Index>(64, kShareBytes / (arrays * stride * Index(sizeof(T))));
  const Index parts = (batch + most - 1) / most;
  Buffer<T> memory(arrays * ((batch + parts - 1) / parts) * stride);
  for (Index part = 0; part < parts; ++part) {
    const Index begin = batch * part / parts, end = batch * (part + 1) / parts;
    relevance_of_part(job, plan, begin, end - begin, arrays, memory.data(), stride, threads);
  }
}

template <class T>
void forward_by_products(const DenseLayer<T>& layer, Matrix<const T> input, Matrix<T> output, const Threads& threads) {
  const std::vector<Sum> sums{{Tap{Part::kInput, {}}}};
  T* const z[] = {output.data};
  forward_products<T>(sums, input, layer.weight, z, output.stride, threads,
                      [&](Index, Index column, Index cols, Index row, Index rows) {
                        if (layer.bias != nullptr) {
                          for (Index i = row; i < row + rows; ++i) {
                            for (Index j = column; j < column + cols; ++j) {
                              output.row(i)[j] += layer.bias[j];
                            }
                          }
                        }
                      });
}

template void relevance_by_products<float>(const DenseJob<float>&, const Threads&);
template void relevance_by_products<double>(const DenseJob<double>&, const Threads&);
template void forward_by_products<float>(const DenseLayer<float>&, Matrix<const float>, Matrix<float>, const Threads&);
template void forward_by_products<double>(const DenseLayer<double>&, Matrix<const double>, Matrix<double>,
                                          const Threads&);

}  // namespace pylrp
