// The choice between tiles and lists, from measured costs.
#include "products/lists.hpp"

#include <atomic>

namespace pylrp {
namespace {

std::atomic<int> forced{static_cast<int>(LeftPath::kCounted)};
std::atomic<std::uint64_t> by_tiles, by_lists, done_by_lists;

// What lists cost, in units of what an entry costs a tile in one panel.
struct Costs {
  double compress;  // an entry, zero or not
  double list;      // to begin and end one, and its sums, for each kListPanels panels
  double entry;     // one that is not zero, in one panel
  double weight;    // to read a row of a panel into the L1 cache, once for all rows
};
// Measured with products of 228 x 256 x 128 at shares of 0.02 to 1: AVX2 and the baseline. AVX-512 (Zen 4):
// convolutions and dense layers at shares of 0.05 to 0.9; lists and tiles take the same time with 0.7 of the entries
// left where there are many panels, 0.4 with two. Groups: 128 and 512 rows of 1000 x 1000 at shares of 0.5 to 1.
template <class T>
Costs costs(bool groups) {
  const Index bytes = kernels::table<T>().tile_cols * Index{sizeof(T)};
  const double wide = sizeof(T) == 4 ? 1 : 2;  // a vector has half as many entries
  if (bytes == 128) {
    return {0.7 * wide, 8, groups ? 1.09 : 1.25, 6};
  }
  return bytes == 64 ? Costs{1.0 * wide, 40, groups ? 1.12 : 1.5, 6} : Costs{1.5, 20, 1.5, 6};
}

}  // namespace

void force_left_path(LeftPath path) { forced.store(static_cast<int>(path), std::memory_order_relaxed); }
LeftPath forced_left_path() { return static_cast<LeftPath>(forced.load(std::memory_order_relaxed)); }

LeftWork left_work() { return {by_tiles.load(), by_lists.load(), done_by_lists.load()}; }
void count_left_work(const LeftWork& work) {
  by_tiles.fetch_add(work.tiles, std::memory_order_relaxed);
  by_lists.fetch_add(work.lists, std::memory_order_relaxed);
  done_by_lists.fetch_add(work.done, std::memory_order_relaxed);
}

template <class T>
double lists_cost(double share, Index rows, Index panels, Index uses, Index steps, bool in_groups) {
  const Costs of = costs<T>(in_groups);
  const double all = static_cast<double>(panels * uses);
  const double groups = static_cast<double>((panels + kernels::kListPanels - 1) / kernels::kListPanels * uses);
  const double alone = panels == 1 ? 1.6 : 1;  // two sums of a row wait for each other
  const double lists = of.compress + groups * of.list / static_cast<double>(steps) +
                       all * (share * of.entry * alone + of.weight / static_cast<double>(std::max<Index>(rows, 1)));
  return lists / all;
}

// Measured with AVX2 on images of a trained VGG16, 112 or 224 rows of 3 x 3 taps by 12 panels: 0.22, 0.36, 0.53 and
// 0.73 of the tiles' time at shares of 0.15, 0.27, 0.44 and 0.65. With AVX-512 (Zen 4), the kernel alone, 224 rows by 8
// panels: 0.07, 0.19, 0.35, 0.55 and 0.71 at shares of 0.07, 0.22, 0.40, 0.63 and 0.81. The others were not measured.
template <class T>
double pairs_cost(double share, Index rows, Index panels, Index taps, Index channels) {
  const double wide = sizeof(T) == 4 ? 1 : 2;  // a vector has half as many entries
  const Index bytes = kernels::table<T>().tile_cols * Index{sizeof(T)};
  const bool widest = bytes == 128;
  const double compress = (widest ? 0.5 : 1.7) * wide, list = widest ? 6 : 20, weight = widest ? 3 : 6;
  const double entry = widest ? 0.94 : (bytes == 64 ? 1.0 : 1.2);
  const double all = static_cast<double>(panels * taps);
  const double groups = static_cast<double>((panels + pair_panels<T>() - 1) / pair_panels<T>() * taps);
  const double alone = panels == 1 ? 1.3 : 1;  // four sums of a pair wait for each other
  const double lists = compress + groups * list / static_cast<double>(std::min(channels, pair_steps<T>())) +
                       all * (share * entry * alone + weight / static_cast<double>(std::max<Index>(rows, 1)));
  return lists / all;
}

template <class T>
Index rows_of_a_list(LeftShares shares, Index rows, Index panels, Index taps, Index channels) {
  const double pairs = pairs_cost<T>(shares.either, rows, panels, taps, channels);
  const double alone = lists_cost<T>(shares.each, rows, panels, taps, std::min(channels, list_steps<T>()));
  if (std::min(pairs, alone) >= kWorthLists) {
    return 0;
  }
  return pairs < alone ? 2 : 1;
}

template <class T>
bool lists_win(double share, Index rows, Index panels, Index uses, Index steps, bool in_groups) {
  return lists_cost<T>(share, rows, panels, uses, steps, in_groups) < kWorthLists;
}

template <class T>
void add_not_finite(const T* panel, Index step, Index depth, Index rows, T* out, Index out_stride) {
  const Index width = kernels::table<T>().tile_cols;
  for (Index j = 0; j < width; ++j) {
    T spoilt = 0;
    for (Index k = 0; k < depth; ++k) {
      spoilt += 0 * panel[k * step + j];
    }
    for (Index i = 0; i < rows; ++i) {
      out[i * out_stride + j] += spoilt;
    }
  }
}

template <class T>
void add_not_finite(const Operands<T>& operands, const T* panel, Index depth, Index rows, T* out, Index out_stride) {
  T spoilt[kernels::kMostTileCols];
  operands.spoilt(panel, depth, spoilt);
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < kernels::table<T>().tile_cols; ++j) {
      out[i * out_stride + j] += spoilt[j];
    }
  }
}

template double lists_cost<float>(double, Index, Index, Index, Index, bool);
template double lists_cost<double>(double, Index, Index, Index, Index, bool);
template double pairs_cost<float>(double, Index, Index, Index, Index);
template double pairs_cost<double>(double, Index, Index, Index, Index);
template Index rows_of_a_list<float>(LeftShares, Index, Index, Index, Index);
template Index rows_of_a_list<double>(LeftShares, Index, Index, Index, Index);
template bool lists_win<float>(double, Index, Index, Index, Index, bool);
template bool lists_win<double>(double, Index, Index, Index, Index, bool);
template void add_not_finite<float>(const Operands<float>&, const float*, Index, Index, float*, Index);
template void add_not_finite<double>(const Operands<double>&, const double*, Index, Index, double*, Index);
template void add_not_finite<float>(const float*, Index, Index, Index, float*, Index);
template void add_not_finite<double>(const double*, Index, Index, Index, double*, Index);

}  // namespace pylrp
