// The product of packed panels, for both directions of a dense layer with many samples (layers/dense/batch.cpp).
//
// The left operand is packed once for all tasks, block by block as tiles or as lists. A task owns a range of panels and
// takes them in slabs of a few: for each block of the reduction it packs the slab's panels of W, then runs all tiles
// over them, so that W's panels and the sums stay in the L2 cache while the left operand streams by. Sums are kept
// panel by panel, (panels, rows, tile_cols): a tile is one contiguous piece. Which task computes a panel does not
// change the order of its sums.
#pragma once

#include <algorithm>
#include <vector>

#include "base/buffer.hpp"
#include "base/parallel.hpp"
#include "base/view.hpp"
#include "kernels/dispatch.hpp"
#include "products/blocking.hpp"
#include "products/fetch.hpp"
#include "products/left.hpp"
#include "products/lists.hpp"

namespace pylrp {

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

// sums[output] (+)= left operand times rho(W)
template <class T>
struct Product {
  Index operand, output;
  kernels::Weights<T> map;
};

// A band's rows as lists, over some panels.
template <class T, class Panel, class Out>
void multiply_band(const Left<T>& left, Index operand, Index first, Index t, Index rows, Index depth, Index panels,
                   bool add, Panel panel, Out out) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  ListProduct<T> product{{}, rows, depth, nullptr, 0, 0, panels, add, kernel.tile_cols};
  product.lists = left.lists(operand, first, t, &product.first_list, &product.part_lists);
  multiply_lists(product, panel, out);
}

// A panel of weights, packed, or rows of `step` where it stands.
template <class T>
struct Panel {
  const T* data;
  Index step;
};

// All products over all panels. pack(panel, first, depth, map, to) packs a panel of W, or says where it stands (there
// is no packed one for lists then); out(scratch, number, panel, output) is where the (rows, tile_cols) sums of a slab's
// panel go, which has this number there; done(scratch, number, panel, first row, rows) follows when they are complete.
// scratch: of a task, for scratch_size entries.
// The reduction is counted in places of the operands, as is its `first` and `depth`. block(first panel, last panel,
// first, depth) is the piece of W they come from: the next one is fetched meanwhile.
template <class T, class Pack, class Block, class Out, class Done>
void multiply_panels(const Tiles& tiles, const Grid& grid, const Left<T>& left, const std::vector<Product<T>>& products,
                     Index reduction, const Operands<T>& operands, const Threads& threads, Index scratch_size,
                     Pack pack, Block block, Out out, Done done) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index width = kernel.tile_cols, count = static_cast<Index>(products.size()),
              panel_size = kReductionBlock * width;
  const Index slab = std::max<Index>(1, kSlabPanels / std::max<Index>(1, count));
  parallel_for(grid.tasks(), threads, [&](Index task) {
    // Of the thread, which used it for the task before: in its caches.
    const Buffer<T> panels(slab * count * panel_size), scratch(scratch_size);
    T* const packed = panels.data();
    std::vector<Panel<T>> at(static_cast<std::size_t>(slab * count));
    std::vector<char> not_finite(static_cast<std::size_t>(slab * count));  // what is packed, where lists read it
    const Index row_begin = tiles.begin(grid.tile_begin(task));
    const Index row_count = tiles.begin(grid.tile_end(task)) - row_begin;
    for (Index begin = grid.panel_begin(task); begin < grid.panel_end(task); begin += slab) {
      const Index end = std::min(begin + slab, grid.panel_end(task));
      for (Index first = 0; first < reduction; first += kReductionBlock) {
        const Index depth = std::min(kReductionBlock, reduction - first);
        for (Index i = 0; i < count; ++i) {
          for (Index p = begin; p < end; ++p) {
            const Product<T>& product = products[static_cast<std::size_t>(i)];
            T* const to = packed + (i * slab + p - begin) * panel_size;
            at[static_cast<std::size_t>(i * slab + p - begin)] = pack(p, first, depth, product.map, to);
            not_finite[static_cast<std::size_t>(i * slab + p - begin)] =
                left.has_lists(product.operand, first) && has_not_finite(to, depth);
          }
        }
        const bool last = first + depth >= reduction;
        const Matrix<const T> next =
            last
                ? (end < grid.panel_end(task)
                       ? block(end, std::min(end + slab, grid.panel_end(task)), 0, std::min(kReductionBlock, reduction))
                       : Matrix<const T>{})
                : block(begin, end, first + depth, std::min(kReductionBlock, reduction - first - depth));
        const Index tile_end = grid.tile_end(task);
        const Index steps = (tile_end - grid.tile_begin(task)) * count * (end - begin);
        Index step = 0;
        const auto fetch_next = [&](Index further) {
          fetch(next, next.rows * step / steps, next.rows * (step + further) / steps);
          step += further;
        };
        for (Index t = grid.tile_begin(task), next_t = t; t < tile_end; t = next_t) {
          const bool lists = std::any_of(products.begin(), products.end(), [&](const Product<T>& product) {
            return left.has_lists(product.operand, first, t);
          });
          next_t = lists ? std::min(left.band_end(t), tile_end) : t + 1;
          for (Index i = 0; i < count; ++i) {
            const Product<T>& product = products[static_cast<std::size_t>(i)];
            const bool add = first > 0 || (i > 0 && products[static_cast<std::size_t>(i - 1)].output == product.output);
            const auto panel = [&](Index p) { return packed + (i * slab + p) * panel_size; };
            const auto sums = [&](Index p) {
              return out(scratch.data(), p, begin + p, product.output) + tiles.begin(t) * width;
            };
            if (left.has_lists(product.operand, first, t)) {
              fetch_next((next_t - t) * (end - begin));
              multiply_band(left, product.operand, first, t, tiles.begin(next_t) - tiles.begin(t), depth, end - begin,
                            add, panel, sums);
              for (Index p = 0; p < end - begin; ++p) {
                if (not_finite[static_cast<std::size_t>(i * slab + p)] != 0) {
                  add_not_finite(panel(p), depth, tiles.begin(next_t) - tiles.begin(t), sums(p), width);
                }
              }
              continue;
            }
            for (Index u = t; u < next_t; ++u) {
              const Index row = tiles.begin(u), rows = tiles.begin(u + 1) - row;
              const T* const x = left.at(product.operand, first, u);
              for (Index p = 0; p < end - begin; ++p) {
                fetch_next(1);
                const Panel<T>& weights = at[static_cast<std::size_t>(i * slab + p)];
                operands.tile(static_cast<int>(rows), depth, x, weights.data, weights.step, add,
                              sums(p) + (row - tiles.begin(t)) * width);
              }
            }
          }
        }
      }
      for (Index p = begin; p < end; ++p) {
        done(scratch.data(), p - begin, p, row_begin, row_count);
      }
    }
  });
}

}  // namespace pylrp
