// Products whose left operand is mostly zeros (behind a ReLU, or s = R / z below one): its rows as lists of the entries
// that are not, which read the same packed panels as the tiles do. Which of the two does a block is decided from
// counted zeros: both give the sums in full, in another order. See kernels/lists.inl.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/buffer.hpp"
#include "base/view.hpp"
#include "kernels/dispatch.hpp"
#include "products/operands.hpp"

namespace pylrp {

// --- which way ---

enum class LeftPath : int { kCounted, kTiles, kLists, kPairs };
// For tests and measurements: all blocks from now on go one way, in the whole process; kCounted is the default. kPairs:
// two rows of a convolution share a list (tap_lists.hpp), everything else has lists of its own.
void force_left_path(LeftPath path);
LeftPath forced_left_path();
inline bool lists_forced() { return forced_left_path() == LeftPath::kLists || forced_left_path() == LeftPath::kPairs; }

// Multiply-adds of products by tiles or lists since the process began: by tiles; by lists, counted as the tiles would
// need them; and those that the lists did. For tests and diagnosis; nothing is decided by them.
struct LeftWork {
  std::uint64_t tiles, lists, done;
};
LeftWork left_work();
void count_left_work(const LeftWork& work);

// The reduction's steps that a list covers: kListPanels panels of that depth stay in the L1 cache, 32 kB. Measured with
// AVX2, a product 228 x 256 x 128 with half zeros: 1.27, 1.23 and 0.70 of the dense speed with 64, 128 and 256; with a
// quarter of the entries left 2.06, 2.13 and 1.76.
template <class T>
Index list_steps() {
  const Index step = kernels::kListPanels * kernels::table<T>().tile_cols * Index{sizeof(T)};
  return std::max<Index>(64, (Index{32} << 10) / step);
}
// The same where panels are groups whose rows lie side by side (kernels/group_lists.inl).
template <class T>
Index group_steps() {
  const Index step = kernels::table<T>().group_panels * kernels::table<T>().tile_cols * Index{sizeof(T)};
  return std::max<Index>(64, (Index{32} << 10) / step);
}
// Panels side by side, and the reduction's steps that a list of a pair covers: such panels take 24 kB of the L1 cache
// with three side by side. Vectors of 64 bytes have two panels of 128 steps: four vectors of weights for eight
// multiply-adds keep them at work (Zen 4: of the peak 4.4, 2.4 and 1.5 with 0.22, 0.40 and 0.63 of the entries
// left; 4.1, 2.3 and 1.5 with three panels of 85 steps).
template <class T>
Index pair_panels() {
  return kernels::table<T>().tile_cols * Index{sizeof(T)} == 128 ? 2 : kernels::kPairPanels;
}
template <class T>
Index pair_steps() {
  const Index bytes = kernels::table<T>().tile_cols * Index{sizeof(T)};
  return bytes == 128 ? 128 : std::max<Index>(64, (Index{24} << 10) / (kernels::kPairPanels * bytes));
}
inline Index list_parts(Index depth, Index steps) { return (depth + steps - 1) / steps; }

// Whether lists win over tiles for some rows, with lists of so many steps that meet `panels` panels side by side,
// `uses` times (taps); share: of entries that are not zero; in_groups: the panels' rows lie side by side.
template <class T>
bool lists_win(double share, Index rows, Index panels, Index uses, Index steps, bool in_groups = false);
// What lists cost then, in units of what tiles do.
template <class T>
double lists_cost(double share, Index rows, Index panels, Index uses, Index steps, bool in_groups = false);
// What lists of pairs of rows cost, in units of what tiles do. share: of entries that are not zero in one of the two.
template <class T>
double pairs_cost(double share, Index rows, Index panels, Index taps, Index channels);
inline constexpr double kWorthLists = 0.95;
// Which entries are not zero, as a share, and which are not in one of two rows.
struct LeftShares {
  double each, either;
};
// How many rows have a list together: 1, 2, or 0, where tiles win.
template <class T>
Index rows_of_a_list(LeftShares shares, Index rows, Index panels, Index taps, Index channels);
// Whether zeros are worth counting: unless lists won with a fifth of the entries left, they are not.
template <class T>
bool zeros_count(Index rows, Index panels, Index uses, Index steps, bool in_groups = false) {
  const LeftPath path = forced_left_path();
  return lists_forced() || (path == LeftPath::kCounted && lists_win<T>(0.2, rows, panels, uses, steps, in_groups));
}
// Of so many rows one is counted, but eight in all at least.
inline Index rows_from_count_to_count(Index rows) { return std::clamp<Index>(rows / 8, 1, 16); }

// --- the lists of some rows ---

// One behind the other: list l has the entries from begins[l] to begins[l + 1].
template <class T>
struct Lists {
  T* values;
  std::uint16_t* steps;
  Index* begins;
};

// sums of a block: panel(p) points at its packed panel, out(p) at the first of its rows.
template <class T>
struct ListProduct {
  Lists<T> lists;
  Index rows, depth;
  const std::int32_t* list_of;   // of each row, the first part's; or null: row i has list first_list + i
  Index first_list, part_lists;  // part j of a row's list is part_lists * j further
  Index panels;
  bool add;
  Index out_stride;
  Index steps = list_steps<T>();  // of the reduction that a list covers
};
template <class T, class Panel, class Out>
void multiply_lists(const ListProduct<T>& product, Panel panel, Out out) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index most = product.steps;
  for (Index first = 0; first < product.panels; first += kernels::kListPanels) {
    const Index count = std::min<Index>(kernels::kListPanels, product.panels - first);
    const T* panels[kernels::kListPanels];
    T* sums[kernels::kListPanels];
    for (Index j = 0, from = 0; from < product.depth; ++j, from += most) {
      for (Index p = 0; p < count; ++p) {
        panels[p] = panel(first + p) + from * kernel.tile_cols;
        sums[p] = out(first + p);
      }
      const Index further = j * product.part_lists;
      kernel.list_rows({{.rows = product.rows,
                         .values = product.lists.values,
                         .steps = product.lists.steps,
                         .begins = product.lists.begins + further,
                         .list_of = product.list_of,
                         .panels = static_cast<int>(count),
                         .panel = panels,
                         .add = product.add || j > 0,
                         .out = sums,
                         .out_stride = product.out_stride},
                        product.first_list});
    }
  }
}

// Lists do not read the weights that meet zeros: what is not finite would be lost. Adds to each row what tiles would:
// NaN in a column that has a weight which is not finite.
template <class T>
bool has_not_finite(const T* panel, Index depth) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  return (kernel.scan(depth * kernel.tile_cols, panel) & kernels::kNotFinite) != 0;
}
// The same where operands may be words.
template <class T>
bool has_not_finite(const Operands<T>& operands, const T* panel, Index depth) {
  T spoilt[kernels::kMostTileCols];
  operands.spoilt(panel, depth, spoilt);
  return std::any_of(spoilt, spoilt + kernels::table<T>().tile_cols, [](T x) { return x != 0; });
}
template <class T>
void add_not_finite(const Operands<T>& operands, const T* panel, Index depth, Index rows, T* out, Index out_stride);
template <class T>
void add_not_finite(const T* panel, Index step, Index depth, Index rows, T* out, Index out_stride);

}  // namespace pylrp
