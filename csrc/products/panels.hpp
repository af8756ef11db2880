// A matrix of weights as packed panels, and the product with them, for tasks that take some rows through several
// products: 1 x 1 convolutions, and the backward pass to images of few channels.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/buffer.hpp"
#include "base/parallel.hpp"
#include "kernels/dispatch.hpp"
#include "products/blocking.hpp"
#include "products/geometry.hpp"
#include "rules/kernel_args.hpp"

namespace pylrp {

inline Index padded(Index columns, Index width) { return (columns + width - 1) / width * width; }

// Weights (out, in) under a map, as panels for one direction: x W^T or x W.
template <class T>
class Panels {
 public:
  Panels(Matrix<const T> weight, const WeightMap& map, Direction direction, Workspace* workspace)
      : weight_(weight), map_(map), forward_(direction == Direction::kForward), workspace_(workspace) {}
  void make() const { memory_.reset(count() * size(), workspace_); }
  Index depth() const { return forward_ ? weight_.cols : weight_.rows; }
  Index columns() const { return forward_ ? weight_.rows : weight_.cols; }
  Index count() const { return (columns() + width() - 1) / width(); }
  Index columns_of(Index panel) const { return std::min(width(), columns() - panel * width()); }
  const T* at(Index panel) const { return memory_.data() + panel * size(); }
  bool is(const WeightMap& map) const { return map == map_; }
  static Index width() { return kernels::table<T>().tile_cols; }

  void pack(Index panel) const {
    const kernels::Table<T>& kernel = kernels::table<T>();
    const int columns = static_cast<int>(columns_of(panel));
    const Index first = panel * width();
    T* const to = memory_.data() + panel * size();
    if (forward_) {
      kernel.pack_forward(columns, depth(), weight_.row(first), weight_.stride, weights_of<T>(map_), to);
    } else {
      kernel.pack_backward(columns, depth(), weight_.data + first, weight_.stride, weights_of<T>(map_), to);
    }
  }

 private:
  Index size() const { return depth() * width(); }
  Matrix<const T> weight_;
  WeightMap map_;
  bool forward_;
  Workspace* workspace_;
  mutable Buffer<T> memory_;
};

// All that a layer needs, each map once; filled by all threads together.
template <class T>
class PanelSet {
 public:
  PanelSet(Matrix<const T> weight, Workspace* workspace) : weight_(weight), workspace_(workspace) {}
  // The number of the panels in their direction.
  std::size_t add(const WeightMap& map, Direction direction) {
    std::vector<std::unique_ptr<Panels<T>>>& of = direction == Direction::kForward ? forward_ : backward_;
    for (std::size_t i = 0; i < of.size(); ++i) {
      if (of[i]->is(map)) {
        return i;
      }
    }
    of.push_back(std::make_unique<Panels<T>>(weight_, map, direction, workspace_));
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
  std::vector<std::unique_ptr<Panels<T>>> forward_, backward_;
};

// out(rows, columns) = or += x(rows, depth) times the weights. Rows of `out` hold whole panels.
template <class T>
void multiply_by_panels(const T* x, Index x_stride, Index rows, const Panels<T>& panels, bool add, T* out,
                        Index out_stride) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index width = Panels<T>::width(), depth = panels.depth();
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
        kernel.tile_taps({.rows = static_cast<int>(height),
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
