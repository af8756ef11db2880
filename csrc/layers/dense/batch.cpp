// Many samples: two products, packed panel by panel, for each sum of the rule.
//
//   forward    Z(batch, n_out)   = sum over taps of X_t rho_t(W)^T     epilogue: s = R / stab(z)
//   backward   R_in(batch, n_in) = sum over products of mix(a) * (S rho(W))
//
// Both are one loop, multiply(). The left operand is packed once for everybody. A task owns a range of panels and takes
// them in slabs of a few: for each block of the reduction it packs the slab's panels of W, then runs all tiles over
// them, so that W's panels and the sums stay in the L2 cache while the left operand streams by. Sums are kept panel by
// panel, (panels, batch, tile_cols): a tile is one contiguous piece. Which task computes a panel does not change the
// order of its sums.
#include <algorithm>

#include "kernels/dispatch.hpp"
#include "layers/dense/dense.hpp"

namespace pylrp {
namespace {

constexpr Index kDepth = 256;                    // of the reduction, a block
constexpr Index kSlab = 8;                       // panels of W that are packed at a time
constexpr Index kPartBytes = Index{8} << 20;     // for z and s, and for the packed left operand; else in several parts
constexpr Index kPartProducts = Index{1} << 33;  // a part takes a tenth of a second: between parts we look for Ctrl-C

constexpr Index kLine = 64;  // bytes of a cache line

// A large batch goes in parts of at most so many rows; wide: entries a row takes in the largest of the work arrays.
template <class T>
Index rows_of_part(Matrix<const T> weight, Index wide) {
  const Index products = std::max<Index>(1, weight.rows * weight.cols);
  const Index memory = std::max<Index>(1, wide * Index(sizeof(T)));
  return std::max<Index>(64, std::min(kPartProducts / products, kPartBytes / memory));
}

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
    // A few tasks a thread where there are slabs enough: a disturbed thread then does fewer of them.
    const Index tasks_a_thread = std::clamp<Index>(panels / (kSlab * threads), 1, 4);
    across = std::clamp<Index>(threads * tasks_a_thread, 1, std::max<Index>(panels, 1));
    down = std::clamp<Index>(threads / across, 1, std::max<Index>(tiles, 1));
  }
  Index tasks() const { return across * down; }
  Index panel_begin(Index task) const { return panels * (task % across) / across; }
  Index panel_end(Index task) const { return panels * (task % across + 1) / across; }
  Index tile_begin(Index task) const { return tiles * (task / across) / down; }
  Index tile_end(Index task) const { return tiles * (task / across + 1) / down; }
};

// Left operands (operands, blocks of the reduction, tiles, depth, rows of the tile), packed by all threads.
template <class T>
class Left {
 public:
  Left(const Tiles& tiles, Index operands, Index reduction)
      : tiles_(tiles),
        reduction_(reduction),
        blocks_((reduction + kDepth - 1) / kDepth),
        block_size_(tiles.rows * kDepth + kernels::kSpare),
        memory_(operands * blocks_ * block_size_),
        operands_(operands) {}

  // fill(operand, row, rows, first, depth, to): packs columns [first, first + depth) of some rows.
  template <class Fill>
  void pack(const Threads& threads, Fill fill) {
    parallel_for(operands_ * blocks_, threads, [&](Index task) {
      const Index operand = task / blocks_, first = task % blocks_ * kDepth;
      const Index depth = std::min(kDepth, reduction_ - first);
      for (Index t = 0; t < tiles_.count; ++t) {  // in order: a tile's packing writes a little beyond its end
        const Index row = tiles_.begin(t);
        fill(operand, row, tiles_.begin(t + 1) - row, first, depth, at(operand, first, row, depth));
      }
    });
  }
  T* at(Index operand, Index first, Index row, Index depth) const {
    return memory_.data() + (operand * blocks_ + first / kDepth) * block_size_ + row * depth;
  }

 private:
  Tiles tiles_;
  Index reduction_, blocks_, block_size_;
  Buffer<T> memory_;
  Index operands_;
};

// Asks for some rows of a matrix to be brought into the L2 cache.
template <class T>
void fetch(Matrix<const T> block, Index begin, Index end) {
  for (Index i = begin; i < end; ++i) {
    for (Index j = 0; j < block.cols; j += kLine / Index(sizeof(T))) {
      __builtin_prefetch(block.row(i) + j, 0, 2);
    }
  }
}

// sums[output] (+)= left operand times rho(W)
template <class T>
struct Product {
  Index operand, output;
  kernels::Weights<T> map;
};

// All products over all panels. pack(panel, first, depth, map, to) packs a panel of W; out(task, panel, output) is
// where its (rows, tile_cols) sums go; done(task, panel, first row, rows) follows when they are complete.
// block(first panel, last panel, first, depth) is the piece of W they come from: the next one is fetched meanwhile.
template <class T, class Pack, class Block, class Out, class Done>
void multiply(const Tiles& tiles, const Grid& grid, const Left<T>& left, const std::vector<Product<T>>& products,
              Index reduction, const Threads& threads, Pack pack, Block block, Out out, Done done) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index width = kernel.tile_cols, count = static_cast<Index>(products.size()), panel_size = kDepth * width;
  const Index slab = std::max<Index>(1, kSlab / std::max<Index>(1, count));
  const Buffer<T> panels(grid.tasks() * slab * count * panel_size);
  parallel_for(grid.tasks(), threads, [&](Index task) {
    T* const packed = panels.data() + task * slab * count * panel_size;
    const Index row_begin = tiles.begin(grid.tile_begin(task));
    const Index row_count = tiles.begin(grid.tile_end(task)) - row_begin;
    for (Index begin = grid.panel_begin(task); begin < grid.panel_end(task); begin += slab) {
      const Index end = std::min(begin + slab, grid.panel_end(task));
      for (Index first = 0; first < reduction; first += kDepth) {
        const Index depth = std::min(kDepth, reduction - first);
        for (Index i = 0; i < count; ++i) {
          for (Index p = begin; p < end; ++p) {
            pack(p, first, depth, products[static_cast<std::size_t>(i)].map,
                 packed + (i * slab + p - begin) * panel_size);
          }
        }
        const bool last = first + depth >= reduction;
        const Matrix<const T> next =
            last ? (end < grid.panel_end(task)
                        ? block(end, std::min(end + slab, grid.panel_end(task)), 0, std::min(kDepth, reduction))
                        : Matrix<const T>{})
                 : block(begin, end, first + depth, std::min(kDepth, reduction - first - depth));
        const Index steps = (grid.tile_end(task) - grid.tile_begin(task)) * count * (end - begin);
        Index step = 0;
        for (Index t = grid.tile_begin(task); t < grid.tile_end(task); ++t) {
          const Index row = tiles.begin(t), rows = tiles.begin(t + 1) - row;
          for (Index i = 0; i < count; ++i) {
            const Product<T>& product = products[static_cast<std::size_t>(i)];
            const bool add = first > 0 || (i > 0 && products[static_cast<std::size_t>(i - 1)].output == product.output);
            const T* const x = left.at(product.operand, first, row, depth);
            for (Index p = begin; p < end; ++p) {
              fetch(next, next.rows * step / steps, next.rows * (step + 1) / steps);
              ++step;
              kernel.tile(static_cast<int>(rows), depth, x, packed + (i * slab + p - begin) * panel_size, add,
                          out(task, p, product.output) + row * width);
            }
          }
        }
      }
      for (Index p = begin; p < end; ++p) {
        done(task, p, row_begin, row_count);
      }
    }
  });
}

constexpr int part_sign(Part part) { return part == Part::kPositive ? 1 : (part == Part::kNegative ? -1 : 0); }

// Z_q(panels, batch, tile_cols) for all sums of a rule; done(panel, first row, rows) when a panel is complete.
template <class T, class Done>
void forward_products(const std::vector<Sum>& sums, Matrix<const T> input, Matrix<const T> weight, T* const* z,
                      const Threads& threads, Done done) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index width = kernel.tile_cols, n_out = weight.rows;
  const Tiles tiles(input.rows, kernel.tile_rows);
  const Grid grid((n_out + width - 1) / width, tiles.count, threads.count);
  std::vector<Product<T>> products;
  std::vector<Part> parts;  // the operands: each part of the input once
  for (std::size_t q = 0; q < sums.size(); ++q) {
    for (const Tap& tap : sums[q]) {
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
  Left<T> left(tiles, static_cast<Index>(parts.size()), weight.cols);
  left.pack(threads, [&](Index operand, Index row, Index rows, Index first, Index depth, T* to) {
    kernel.pack_left(static_cast<int>(rows), depth, input.row(row) + first, input.stride,
                     part_sign(parts[static_cast<std::size_t>(operand)]), to);
  });
  multiply<T>(
      tiles, grid, left, products, products.empty() ? 0 : weight.cols, threads,
      [&](Index p, Index first, Index depth, kernels::Weights<T> map, T* to) {
        kernel.pack_forward(static_cast<int>(std::min(width, n_out - p * width)), depth, weight.row(p * width) + first,
                            weight.stride, map, to);
      },
      [&](Index begin, Index end, Index first, Index depth) {
        const Index row = begin * width;
        return Matrix<const T>{weight.row(row) + first, std::min(end * width, n_out) - row, depth, weight.stride};
      },
      [&](Index, Index p, Index q) { return z[q] + p * width * input.rows; },
      [&](Index, Index p, Index row, Index rows) { done(p, row, rows); });
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
  Left<T> left(tiles, static_cast<Index>(rule.groups.size()), weight.rows);
  left.pack(threads, [&](Index g, Index row, Index rows, Index first, Index depth, T* to) {
    for (Index k = 0; k < depth; k += width) {
      kernel.pack_left(static_cast<int>(rows), std::min(width, depth - k), s[g] + (first + k) * batch + row * width,
                       width, 0, to + k * rows);
    }
  });
  const Index backs = static_cast<Index>(products.size()), size = batch * width;
  const Buffer<T> sums(grid.tasks() * kSlab * backs * size);
  const auto sum_of = [&](Index task, Index p, Index b) {
    return sums.data() + ((task * kSlab + (p - grid.panel_begin(task)) % kSlab) * backs + b) * size;
  };
  multiply<T>(
      tiles, grid, left, products, weight.rows, threads,
      [&](Index p, Index first, Index depth, kernels::Weights<T> map, T* to) {
        kernel.pack_backward(static_cast<int>(std::min(width, n_in - p * width)), depth, weight.row(first) + p * width,
                             weight.stride, map, to);
      },
      [&](Index begin, Index end, Index first, Index depth) {
        const Index column = begin * width;
        return Matrix<const T>{weight.row(first) + column, depth, std::min(end * width, n_in) - column, weight.stride};
      },
      sum_of,
      [&](Index task, Index p, Index row, Index rows) {
        const Index column = p * width, cols = std::min(width, n_in - column);
        kernels::Mixed<T> mixed = mixed_of<T>(rule);
        for (Index b = 0; b < backs; ++b) {
          mixed.acc[b] = sum_of(task, p, b) + row * width;
        }
        kernel.accumulate(rows, cols, mixed, width, input ? input.row(row) + column : nullptr, input.stride,
                          job.bounds.low ? job.bounds.low + column : nullptr,
                          job.bounds.high ? job.bounds.high + column : nullptr, 0, false, result.row(row) + column,
                          result.stride);
      });
}

// Rows [begin, begin + batch) of a job; work: z and s, (panels, batch, tile_cols) each, in the same memory.
template <class T>
void relevance_of_part(const DenseJob<T>& job, const kernels::Shares<T>& plan, Index begin, Index batch, T* const* work,
                       const Threads& threads) {
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
    kernel.shares(rows, std::min(width, n_out - p * width), shares_at_column(plan, p * width), z_at, z_stride,
                  relevance.row(row) + p * width, relevance.stride, s_at, width,
                  job.absorbed ? &absorbed[static_cast<std::size_t>(p * batch + row)] : nullptr, 1);
  };
  if (output_is_sum(job)) {
    const T* const output[] = {job.output.row(begin)};
    parallel_for(panels, threads, [&](Index p) { share(p, 0, batch, output, width, job.output.stride); });
  } else {
    forward_products<T>(job.rule->sums, input, job.layer.weight, work, threads,
                        [&](Index p, Index row, Index rows) { share(p, row, rows, work, batch * width, width); });
  }
  for (std::size_t i = 0; i < absorbed.size(); ++i) {
    kernels::Absorbed& total = job.absorbed[begin + static_cast<Index>(i) % batch];
    add_absorbed(absorbed[i], &total);
  }
  backward_products<T>(job, input, work, job.result.slice(begin, batch), threads);
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
void relevance_by_products(const DenseJob<T>& job, const Threads& threads) {
  const LoweredRule& rule = *job.rule;
  const Matrix<const T> weight = job.layer.weight;
  if (rule.back.empty() || weight.rows == 0) {
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
  const kernels::Shares<T> plan = shares_of<T>(rule, base, bias, reuse ? nullptr : job.layer.bias);
  const Index arrays = static_cast<Index>(std::max(rule.sums.size(), rule.groups.size()));
  const Index batch = job.relevance.rows;
  const Index most = rows_of_part(weight, std::max(arrays * weight.rows, 2 * weight.cols));
  const Index parts = std::max<Index>(1, (batch + most - 1) / most);
  const PanelArrays<T> work(arrays, (batch + parts - 1) / parts, weight.rows);
  for (Index part = 0; part < parts; ++part) {
    const Index begin = batch * part / parts, end = batch * (part + 1) / parts;
    relevance_of_part(job, plan, begin, end - begin, work.of, threads);
  }
}

template <class T>
void forward_by_products(const DenseLayer<T>& layer, Matrix<const T> input, Matrix<T> output, const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const std::vector<Sum> sums{{Tap{Part::kInput, {}}}};
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

template void relevance_by_products<float>(const DenseJob<float>&, const Threads&);
template void relevance_by_products<double>(const DenseJob<double>&, const Threads&);
template void forward_by_products<float>(const DenseLayer<float>&, Matrix<const float>, Matrix<float>, const Threads&);
template void forward_by_products<double>(const DenseLayer<double>&, Matrix<const double>, Matrix<double>,
                                          const Threads&);

}  // namespace pylrp
