// A matrix of weights as packed panels, and the product with them, for tasks that take some rows through several
// products: 1 x 1 convolutions, and the backward pass to images of few channels.
#pragma once

#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "base/buffer.hpp"
#include "base/parallel.hpp"
#include "kernels/dispatch.hpp"
#include "products/blocking.hpp"
#include "products/geometry.hpp"
#include "products/lists.hpp"
#include "products/operands.hpp"
#include "rules/kernel_args.hpp"

namespace pylrp {

inline Index padded(Index columns, Index width) { return (columns + width - 1) / width * width; }

// Weights (out, in) under a map, as panels for one direction: x W^T or x W.
template <class T>
class Panels {
 public:
  Panels(Matrix<const T> weight, const WeightMap& map, Direction direction, Workspace* workspace,
         const Operands<T>& operands = Operands<T>())
      : weight_(weight),
        map_(map),
        forward_(direction == Direction::kForward),
        workspace_(workspace),
        operands_(operands) {}
  void make() const {
    memory_.reset(count() * size(), workspace_);
    not_finite_.assign(static_cast<std::size_t>(count()), 0);
  }
  Index depth() const { return forward_ ? weight_.cols : weight_.rows; }
  Index columns() const { return forward_ ? weight_.rows : weight_.cols; }
  Index count() const { return (columns() + width() - 1) / width(); }
  Index columns_of(Index panel) const { return std::min(width(), columns() - panel * width()); }
  const T* at(Index panel) const { return memory_.data() + panel * size(); }
  bool is(const WeightMap& map) const { return map == map_; }
  const Operands<T>& operands() const { return operands_; }
  static Index width() { return kernels::table<T>().tile_cols; }

  void pack(Index panel) const {
    const kernels::Table<T>& kernel = kernels::table<T>();
    const int columns = static_cast<int>(columns_of(panel));
    const Index first = panel * width();
    T* const to = memory_.data() + panel * size();
    const kernels::Weights<T> map = weights_of<T>(map_);
    bool bad = false;
    operands_.pack(depth(), width(), to, [&](T* x) {
      bad = forward_ ? kernel.pack_forward(columns, depth(), weight_.row(first), weight_.stride, map, x, width())
                     : kernel.pack_backward(columns, depth(), weight_.data + first, weight_.stride, map, x, width());
    });
    if (operands_.rounded() && counts_zeros(kManyRows)) {  // which a number may become by rounding
      bad = bad || has_not_finite(to, depth());
    }
    not_finite_[static_cast<std::size_t>(panel)] = bad;
  }
  // Whether lists could win over tiles with so many rows.
  bool counts_zeros(Index rows) const {
    return !operands_.words() && zeros_count<T>(rows, count(), 1, std::min(depth(), list_steps<T>()));
  }
  bool not_finite(Index panel) const { return not_finite_[static_cast<std::size_t>(panel)] != 0; }

 private:
  static constexpr Index kManyRows = Index{1} << 30;
  Index size() const { return operands_.places(depth()) * width(); }
  Matrix<const T> weight_;
  WeightMap map_;
  bool forward_;
  Workspace* workspace_;
  Operands<T> operands_;
  mutable Buffer<T> memory_;
  mutable std::vector<char> not_finite_;
};

// All that a layer needs, each map once; filled by all threads together.
template <class T>
class PanelSet {
 public:
  PanelSet(Matrix<const T> weight, Workspace* workspace, const Operands<T>& operands)
      : weight_(weight), workspace_(workspace), operands_(operands) {}
  // The number of the panels in their direction.
  std::size_t add(const WeightMap& map, Direction direction) {
    std::vector<std::unique_ptr<Panels<T>>>& of = direction == Direction::kForward ? forward_ : backward_;
    for (std::size_t i = 0; i < of.size(); ++i) {
      if (of[i]->is(map)) {
        return i;
      }
    }
    of.push_back(std::make_unique<Panels<T>>(weight_, map, direction, workspace_, operands_));
    return of.size() - 1;
  }
  void pack(const Threads& threads) const {
    std::vector<std::pair<const Panels<T>*, Index>> all;
    for (const auto* of : {&forward_, &backward_}) {
      for (const auto& panels : *of) {
        panels->make();
        for (Index p = 0; p < panels->count(); ++p) {
          all.push_back({panels.get(), p});
        }
      }
    }
    const bool few = weight_.rows * weight_.cols * static_cast<Index>(all.size()) < kMinWeightsToPackInParallel;
    parallel_for(static_cast<Index>(all.size()), threads.alone_if(few), [&](Index i) {
      const auto& [panels, panel] = all[static_cast<std::size_t>(i)];
      panels->pack(panel);
    });
  }
  const Panels<T>& forward(std::size_t i) const { return *forward_[i]; }
  const Panels<T>& backward(std::size_t i) const { return *backward_[i]; }

 private:
  Matrix<const T> weight_;
  Workspace* workspace_;
  Operands<T> operands_;
  std::vector<std::unique_ptr<Panels<T>>> forward_, backward_;
};

// The share of entries of some rows that are not zero, from a sample of them.
template <class T>
double share_of_nonzeros(const T* x, Index x_stride, Index rows, Index depth) {
  const Index apart = rows_from_count_to_count(rows);
  Index kept = 0, counted = 0;
  for (Index i = apart / 2; i < rows; i += apart) {
    kept += kernels::table<T>().nonzeros(depth, x + i * x_stride, 0);
    counted += depth;
  }
  return static_cast<double>(kept) / static_cast<double>(std::max<Index>(counted, 1));
}

// out(rows, columns) = or += rows of x, as lists of what is not zero, times the weights.
template <class T>
void multiply_lists_of(const T* x, Index x_stride, Index rows, const Panels<T>& panels, bool add, T* out,
                       Index out_stride) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index width = Panels<T>::width(), depth = panels.depth();
  const Index most = list_steps<T>(), parts = list_parts(depth, most);
  const Buffer<T> values(rows * depth + kernels::kSpare);
  const Buffer<std::uint16_t> steps(rows * depth + kernels::kSpare);
  std::vector<Index> begins;
  Index kept = 0;
  for (Index list = 0; list < parts * rows; ++list) {
    const Index from = list / rows * most;
    begins.push_back(kept);
    kept += kernel.compress(std::min(most, depth - from), x + list % rows * x_stride + from, 0, 0, values.data() + kept,
                            steps.data() + kept);
  }
  begins.push_back(kept);
  count_left_work({0, static_cast<std::uint64_t>(rows * depth * panels.count() * width),
                   static_cast<std::uint64_t>(kept * panels.count() * width)});
  multiply_lists<T>(
      {{values.data(), steps.data(), begins.data()},
       rows,
       depth,
       nullptr,
       0,
       rows,
       panels.count(),
       add,
       out_stride,
       most},
      [&](Index p) { return panels.at(p); }, [&](Index p) { return out + p * width; });
  for (Index p = 0; p < panels.count(); ++p) {
    if (panels.not_finite(p)) {
      add_not_finite(panels.at(p), width, depth, rows, out + p * width, out_stride);
    }
  }
}

// The same with a list for two rows each, of what is not zero in either.
template <class T>
void multiply_pairs_of(const T* x, Index x_stride, Index rows, const Panels<T>& panels, bool add, T* out,
                       Index out_stride) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index width = Panels<T>::width(), depth = panels.depth(), pairs = rows / 2;
  const Index most = pair_steps<T>(), parts = list_parts(depth, most);
  const Buffer<T> values(2 * (pairs * depth + kernels::kSpare));
  const Buffer<std::uint16_t> steps(pairs * depth + kernels::kSpare);
  std::vector<Index> begins;
  std::vector<std::int32_t> list_of(static_cast<std::size_t>(pairs));
  std::iota(list_of.begin(), list_of.end(), 0);
  Index kept = 0;
  for (Index list = 0; list < parts * pairs; ++list) {
    const Index from = list / pairs * most;
    const T* const first = x + 2 * (list % pairs) * x_stride + from;
    begins.push_back(kept);
    kept += kernel.compress_pair(std::min(most, depth - from), first, first + x_stride, values.data() + 2 * kept,
                                 steps.data() + kept);
  }
  begins.push_back(kept);
  count_left_work({0, static_cast<std::uint64_t>(2 * pairs * depth * panels.count() * width),
                   static_cast<std::uint64_t>(2 * kept * panels.count() * width)});
  for (Index first = 0; first < panels.count(); first += pair_panels<T>()) {
    const Index count = std::min(pair_panels<T>(), panels.count() - first);
    for (Index part = 0; part < parts; ++part) {
      const T* panel[kernels::kPairPanels];
      T* sums[kernels::kPairPanels];
      for (Index p = 0; p < count; ++p) {
        panel[p] = panels.at(first + p) + part * most * width;
        sums[p] = out + (first + p) * width;
      }
      kernel.list_pairs({.rows = pairs,
                         .values = values.data(),
                         .steps = steps.data(),
                         .begins = begins.data() + part * pairs,
                         .list_of = list_of.data(),
                         .panels = static_cast<int>(count),
                         .panel = panel,
                         .add = add || part > 0,
                         .out = sums,
                         .out_stride = out_stride});
    }
  }
  for (Index p = 0; p < panels.count(); ++p) {
    if (panels.not_finite(p)) {
      add_not_finite(panels.at(p), width, depth, 2 * pairs, out + p * width, out_stride);
    }
  }
  if (rows % 2 != 0) {
    multiply_lists_of<T>(x + 2 * pairs * x_stride, x_stride, 1, panels, add, out + 2 * pairs * out_stride, out_stride);
  }
}

// Of pairs of rows, from a sample: the share of entries that are not zero in one of the two.
template <class T>
double share_of_pairs(const T* x, Index x_stride, Index rows, Index depth) {
  const Index apart = (rows_from_count_to_count(rows) + 1) / 2 * 2;
  const Buffer<T> values(2 * (depth + kernels::kSpare));
  const Buffer<std::uint16_t> steps(depth + kernels::kSpare);
  Index kept = 0, counted = 0;
  for (Index i = apart / 4 * 2; i + 1 < rows; i += apart) {
    const T* const first = x + i * x_stride;
    kept += kernels::table<T>().compress_pair(depth, first, first + x_stride, values.data(), steps.data());
    counted += depth;
  }
  return counted == 0 ? 1 : static_cast<double>(kept) / static_cast<double>(counted);
}

// Rows of x as lists of what is not zero, of each or of two, where enough is; returns false where tiles win.
template <class T>
bool multiply_by_lists(const T* x, Index x_stride, Index rows, const Panels<T>& panels, bool add, T* out,
                       Index out_stride) {
  const Index depth = panels.depth();
  Index together = forced_left_path() == LeftPath::kPairs ? 2 : 1;
  if (forced_left_path() == LeftPath::kCounted) {
    const LeftShares shares{share_of_nonzeros(x, x_stride, rows, depth), share_of_pairs(x, x_stride, rows, depth)};
    together = rows_of_a_list<T>(shares, rows, panels.count(), 1, depth);
  }
  if (together == 0) {
    return false;
  }
  (together == 2 ? multiply_pairs_of<T> : multiply_lists_of<T>)(x, x_stride, rows, panels, add, out, out_stride);
  return true;
}

// out(rows, columns) = or += x(rows, depth) times the weights. Rows of `out` hold whole panels.
template <class T>
void multiply_by_panels(const T* x, Index x_stride, Index rows, const Panels<T>& panels, bool add, T* out,
                        Index out_stride) {
  const Operands<T>& operands = panels.operands();
  const Index width = Panels<T>::width(), depth = operands.places(panels.depth());
  Buffer<T> rounded;
  if (operands.rounded()) {
    rounded.reset(rows * depth);
    for (Index i = 0; i < rows; ++i) {
      operands.round_row(panels.depth(), x + i * x_stride, rounded.data() + i * depth);
    }
    x = rounded.data();
    x_stride = depth;
  }
  if (panels.counts_zeros(rows) && multiply_by_lists(x, x_stride, rows, panels, add, out, out_stride)) {
    return;
  }
  count_left_work({static_cast<std::uint64_t>(rows * panels.depth() * panels.count() * width), 0, 0});
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index tiles = (rows + kernel.tile_rows - 1) / kernel.tile_rows;
  const Index chunks = (depth + kReductionBlock - 1) / kReductionBlock;
  thread_local std::vector<const T*> at;
  at.resize(static_cast<std::size_t>(rows));
  for (Index c = 0; c < chunks; ++c) {
    const Index first = depth * c / chunks, count = depth * (c + 1) / chunks - first;
    for (Index i = 0; i < rows; ++i) {
      at[static_cast<std::size_t>(i)] = x + i * x_stride + first;
    }
    for (Index p = 0; p < panels.count(); ++p) {
      for (Index t = 0; t < tiles; ++t) {
        const Index row = rows * t / tiles, height = rows * (t + 1) / tiles - row;
        operands.tile_taps({.rows = static_cast<int>(height),
                            .halves = 2 * panels.columns_of(p) <= width ? 1 : 2,
                            .taps = 1,
                            .k = count,
                            .rows_at = at.data() + row,
                            .panel = panels.at(p) + first * width,
                            .add = add || c > 0,
                            .out = out + row * out_stride + p * width,
                            .out_stride = out_stride});
      }
    }
  }
}

}  // namespace pylrp
