// Tasks of some positions each, for layers that do a position alone: kernels of one.
#pragma once

#include <algorithm>

#include "base/parallel.hpp"
#include "base/size.hpp"

namespace pylrp {

// Positions of all samples in tasks that need `row_bytes` a position: body(task, sample, first position, positions).
struct PositionTasks {
  static constexpr Index kMinTasks = 4;                  // of a sample
  static constexpr Index kTaskBytes = Index{384} << 10;  // of a task's arrays
  Index samples, positions, parts;
  // tile_rows: a task has about a multiple of them.
  PositionTasks(Index samples_, Index positions_, Index row_bytes, Index tile_rows)
      : samples(samples_), positions(positions_) {
    const Index fitting = std::max<Index>(1, kTaskBytes / row_bytes / tile_rows) * tile_rows;
    const Index tiles = (positions + tile_rows - 1) / tile_rows;
    parts = std::clamp<Index>((positions + fitting - 1) / fitting, std::min(kMinTasks, (tiles + 1) / 2), tiles);
  }
  Index count() const { return samples * parts; }
  template <class Body>
  void each(const Threads& threads, Body body) const {
    parallel_for(count(), threads, [&](Index task) {
      const Index part = task % parts, first = positions * part / parts;
      body(task, task / parts, first, positions * (part + 1) / parts - first);
    });
  }
};

}  // namespace pylrp
