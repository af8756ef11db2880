// The product of packed panels, for both directions of a dense layer with many samples (layers/dense/batch.cpp).
//
// The left operand is packed once for all tasks. A task owns a range of panels and takes them in slabs of a few: for
// each block of the reduction it packs the slab's panels of W, then runs all tiles over them, so that W's panels and
// the sums stay in the L2 cache while the left operand streams by. Sums are kept panel by panel, (panels, rows,
// tile_cols): a tile is one contiguous piece. Which task computes a panel does not change the order of its sums.
#pragma once

#include <algorithm>
#include <vector>

#include "base/buffer.hpp"
#include "base/parallel.hpp"
#include "base/view.hpp"
#include "kernels/dispatch.hpp"
#include "products/blocking.hpp"

namespace pylrp {

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
    // Several tasks a thread where there are slabs enough, so that a preempted thread takes fewer of them.
    const Index tasks_a_thread = std::clamp<Index>(panels / (kSlabPanels * threads), 1, 4);
    across = std::clamp<Index>(threads * tasks_a_thread, 1, std::max<Index>(panels, 1));
    down = std::clamp<Index>(threads / across, 1, std::max<Index>(tiles, 1));
  }
  Index tasks() const { return across * down; }
  Index panel_begin(Index task) const { return panels * (task % across) / across; }
  Index panel_end(Index task) const { return panels * (task % across + 1) / across; }
  Index tile_begin(Index task) const { return tiles * (task / across) / down; }
  Index tile_end(Index task) const { return tiles * (task / across + 1) / down; }
};

// Left operands (operands, blocks of the reduction, tiles, depth, rows of the tile), packed by all threads together.
template <class T>
class Left {
 public:
  Left(const Tiles& tiles, Index operands, Index reduction)
      : tiles_(tiles),
        reduction_(reduction),
        blocks_((reduction + kReductionBlock - 1) / kReductionBlock),
        block_size_(tiles.rows * kReductionBlock + kernels::kSpare),
        memory_(operands * blocks_ * block_size_),
        operands_(operands) {}

  // fill(operand, row, rows, first, depth, to): packs columns [first, first + depth) of some rows.
  template <class Fill>
  void pack(const Threads& threads, Fill fill) {
    parallel_for(operands_ * blocks_, threads, [&](Index task) {
      const Index operand = task / blocks_, first = task % blocks_ * kReductionBlock;
      const Index depth = std::min(kReductionBlock, reduction_ - first);
      for (Index t = 0; t < tiles_.count; ++t) {  // in order: a tile's packing writes a little beyond its end
        const Index row = tiles_.begin(t);
        fill(operand, row, tiles_.begin(t + 1) - row, first, depth, at(operand, first, row, depth));
      }
    });
  }
  T* at(Index operand, Index first, Index row, Index depth) const {
    return memory_.data() + (operand * blocks_ + first / kReductionBlock) * block_size_ + row * depth;
  }

 private:
  Tiles tiles_;
  Index reduction_, blocks_, block_size_;
  Buffer<T> memory_;
  Index operands_;
};

// Asks for some rows of a matrix to be brought into the L2 cache.
inline constexpr Index kCacheLine = 64;  // bytes
template <class T>
void fetch(Matrix<const T> block, Index begin, Index end) {
  for (Index i = begin; i < end; ++i) {
    for (Index j = 0; j < block.cols; j += kCacheLine / Index(sizeof(T))) {
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
void multiply_panels(const Tiles& tiles, const Grid& grid, const Left<T>& left, const std::vector<Product<T>>& products,
                     Index reduction, const Threads& threads, Pack pack, Block block, Out out, Done done) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index width = kernel.tile_cols, count = static_cast<Index>(products.size()),
              panel_size = kReductionBlock * width;
  const Index slab = std::max<Index>(1, kSlabPanels / std::max<Index>(1, count));
  const Buffer<T> panels(grid.tasks() * slab * count * panel_size);
  parallel_for(grid.tasks(), threads, [&](Index task) {
    T* const packed = panels.data() + task * slab * count * panel_size;
    const Index row_begin = tiles.begin(grid.tile_begin(task));
    const Index row_count = tiles.begin(grid.tile_end(task)) - row_begin;
    for (Index begin = grid.panel_begin(task); begin < grid.panel_end(task); begin += slab) {
      const Index end = std::min(begin + slab, grid.panel_end(task));
      for (Index first = 0; first < reduction; first += kReductionBlock) {
        const Index depth = std::min(kReductionBlock, reduction - first);
        for (Index i = 0; i < count; ++i) {
          for (Index p = begin; p < end; ++p) {
            pack(p, first, depth, products[static_cast<std::size_t>(i)].map,
                 packed + (i * slab + p - begin) * panel_size);
          }
        }
        const bool last = first + depth >= reduction;
        const Matrix<const T> next =
            last
                ? (end < grid.panel_end(task)
                       ? block(end, std::min(end + slab, grid.panel_end(task)), 0, std::min(kReductionBlock, reduction))
                       : Matrix<const T>{})
                : block(begin, end, first + depth, std::min(kReductionBlock, reduction - first - depth));
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

}  // namespace pylrp
