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

// A panel of weights: packed, or rows of `step` where it stands.
template <class T>
struct Panel {
  const T* data;
  Index step;
};

// A slab's packed panels, of some products: one by one for tiles, or, where lists read them, in groups whose rows lie
// side by side (kernels/group_lists.inl).
template <class T>
class Slab {
 public:
  Slab(Index panels, Index products)
      : panels_((panels + group() - 1) / group() * group()), memory_(panels_ * products * size()) {
    at_.resize(static_cast<std::size_t>(panels_ * products));
    not_finite_.resize(at_.size());
  }
  static Index group() { return kernels::table<T>().group_panels; }
  static Index step(bool groups) { return kernels::table<T>().tile_cols * (groups ? group() : 1); }
  T* place(Index product, Index p, bool groups) const {
    const Index first = product * panels_ + (groups ? p / group() * group() : p);
    return memory_.data() + first * size() + (groups ? p % group() * step(false) : 0);
  }
  Panel<T>& at(Index product, Index p) { return at_[static_cast<std::size_t>(product * panels_ + p)]; }

  // Once the first `count` panels are packed in groups: rounds them and looks for what is not finite.
  void finish_groups(Index product, Index count, Index depth, const Operands<T>& operands) {
    for (Index begin = 0; begin < count; begin += group()) {
      const bool whole = count - begin >= group();
      const Index rows = whole ? 1 : depth, size = whole ? depth * step(true) : (count - begin) * step(false);
      int flags = 0;
      for (Index k = 0; k < rows; ++k) {
        T* const row = place(product, begin, true) + k * step(true);
        if (operands.rounded()) {
          operands.round_row(size, row, row);
        }
        flags |= kernels::table<T>().scan(size, row);
      }
      not_finite_[static_cast<std::size_t>(product * panels_ + begin)] = (flags & kernels::kNotFinite) != 0;
    }
  }

  // Some rows as lists, over the first `count` panels: sums[panel] is where a panel's rows go. Not in line: it would be
  // there once for each caller of multiply_panels().
  __attribute__((noinline)) void multiply_lists(const Left<T>& left, Index operand, Index first, Index t, Index rows,
                                                Index depth, Index product, Index count, bool add, T* const* sums) {
    const kernels::Table<T>& kernel = kernels::table<T>();
    for (Index begin = 0; begin < count; begin += group()) {
      const Index together = std::min(group(), count - begin);
      for (Index from = 0; from < depth; from += group_steps<T>()) {
        const Lists<T> lists = left.lists(operand, first, t, from);
        kernel.group_rows({.rows = rows,
                           .values = lists.values,
                           .steps = lists.steps,
                           .begins = lists.begins,
                           .panels = static_cast<int>(together),
                           .group = place(product, begin, true) + from * step(true),
                           .add = add || from > 0,
                           .out = sums + begin});
      }
      for (Index p = 0; p < together && not_finite_[static_cast<std::size_t>(product * panels_ + begin)] != 0; ++p) {
        add_not_finite(at(product, begin + p).data, step(true), depth, rows, sums[begin + p], step(false));
      }
    }
  }

 private:
  static Index size() { return kReductionBlock * kernels::table<T>().tile_cols; }
  Index panels_;
  Buffer<T> memory_;
  std::vector<Panel<T>> at_;
  std::vector<char> not_finite_;  // of a group: in its first panel's place
};

// A panel that fill(to) packs, whose rows are `step` apart. Alone it is rounded where its operands are; Slab rounds
// groups.
template <class T, class Fill>
Panel<T> packed_panel(const Operands<T>& operands, Index steps, T* to, Index step, Fill fill) {
  if (step == kernels::table<T>().tile_cols) {
    operands.pack(steps, step, to, fill);
  } else {
    fill(to);
  }
  return {to, step};
}

// How many panels a slab has. Sums of lists are loaded and stored for each part of the reduction.
template <class T>
Index slab_panels(const Left<T>& left, Index products) {
  if (!left.has_lists()) {
    return std::max<Index>(1, kSlabPanels / std::max<Index>(1, products));
  }
  return std::max<Index>(Slab<T>::group(), kListSlabPanels / std::max<Index>(1, products));
}

// All products over all panels. pack(panel, first, depth, map, to, step) packs a panel of W, or says where it stands
// (there are no lists then); out(scratch, number, panel, output) is where the (rows, tile_cols) sums of a slab's
// panel go, which has this number there; done(scratch, number, panel, first row, rows) follows when they are complete.
// scratch: of a task, for scratch_size entries a panel of the slab.
// The reduction is counted in places of the operands, as is its `first` and `depth`. block(first panel, last panel,
// first, depth) is the piece of W they come from: the next one is fetched meanwhile.
template <class T, class Pack, class Block, class Out, class Done>
void multiply_panels(const Tiles& tiles, const Grid& grid, const Left<T>& left, const std::vector<Product<T>>& products,
                     Index reduction, const Operands<T>& operands, const Threads& threads, Index scratch_size,
                     Pack pack, Block block, Out out, Done done) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index width = kernel.tile_cols, count = static_cast<Index>(products.size());
  const Index slab = slab_panels<T>(left, count);
  parallel_for(grid.tasks(), threads, [&](Index task) {
    // Of the thread, which used it for the task before: in its caches.
    Slab<T> panels(slab, count);
    const Buffer<T> scratch(slab * scratch_size);
    const Index row_begin = tiles.begin(grid.tile_begin(task));
    const Index row_count = tiles.begin(grid.tile_end(task)) - row_begin;
    for (Index begin = grid.panel_begin(task); begin < grid.panel_end(task); begin += slab) {
      const Index end = std::min(begin + slab, grid.panel_end(task));
      for (Index first = 0; first < reduction; first += kReductionBlock) {
        const Index depth = std::min(kReductionBlock, reduction - first);
        for (Index i = 0; i < count; ++i) {
          const Product<T>& product = products[static_cast<std::size_t>(i)];
          const bool groups = left.has_lists(product.operand, first);
          for (Index p = begin; p < end; ++p) {
            panels.at(i, p - begin) =
                pack(p, first, depth, product.map, panels.place(i, p - begin, groups), panels.step(groups));
          }
          if (groups) {
            panels.finish_groups(i, end - begin, depth, operands);
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
            const auto sums = [&](Index p) {
              return out(scratch.data(), p, begin + p, product.output) + tiles.begin(t) * width;
            };
            if (left.has_lists(product.operand, first, t)) {
              fetch_next((next_t - t) * (end - begin));
              T* to[kSlabPanels];
              for (Index p = 0; p < end - begin; ++p) {
                to[p] = sums(p);
              }
              panels.multiply_lists(left, product.operand, first, t, tiles.begin(next_t) - tiles.begin(t), depth, i,
                                    end - begin, add, to);
              continue;
            }
            for (Index u = t; u < next_t; ++u) {
              const Index row = tiles.begin(u), rows = tiles.begin(u + 1) - row;
              const T* const x = left.at(product.operand, first, u);
              for (Index p = 0; p < end - begin; ++p) {
                fetch_next(1);
                const Panel<T>& weights = panels.at(i, p);
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
