// Axes in another order: a strided copy of each row, and the copy back. For layers/permute.cpp and the layouts of
// values in bindings/layout.hpp.
#pragma once

#include <algorithm>
#include <vector>

#include "base/error.hpp"
#include "base/pieces.hpp"
#include "base/size.hpp"
#include "base/view.hpp"

namespace pylrp {

// Output axis i is axis order[i] of a row of this shape.
class Permutation {
 public:
  Permutation(const std::vector<Index>& shape, const std::vector<Index>& order) {
    require_fit(shape.size() == order.size() && !shape.empty(), "the axes of a permutation");
    std::vector<Index> steps(shape.size());
    for (std::size_t axis = shape.size(); axis-- > 0;) {
      require_fit(shape[axis] > 0, "the axes of a permutation");
      steps[axis] = size_;
      size_ = checked_product({size_, shape[axis]}, "a permutation");
    }
    std::vector<bool> seen(shape.size());
    for (const Index axis : order) {
      require_fit(axis >= 0 && axis < static_cast<Index>(shape.size()) && !seen[static_cast<std::size_t>(axis)],
                  "the axes of a permutation");
      const std::size_t at = static_cast<std::size_t>(axis);
      seen[at] = true;
      add_axis(shape[at], steps[at]);
    }
    if (lengths_.empty()) {
      lengths_ = steps_ = {1};
    }
    while (lengths_[across_] > 1 && steps_[across_] != 1) {
      ++across_;
    }
  }
  Index size() const { return size_; }
  // Where an entry of the input ends up.
  Index place_of(Index entry) const {
    Index place = 0, step = 1;
    for (std::size_t axis = lengths_.size(); axis-- > 0; step *= lengths_[axis]) {
      place += entry / steps_[axis] % lengths_[axis] * step;
    }
    return place;
  }
  // Does it move nothing?
  bool same() const { return lengths_.size() == 1; }

  template <class T>
  void copy(Matrix<const T> from, Matrix<T> to, const Threads& threads) const {
    each_run(to.rows, threads, [&](Index row, const Run& run) {
      copy_run(from.row(row) + run.input, run.input_step, to.row(row) + run.output, run.output_step, run);
    });
  }
  template <class T>
  void copy_back(Matrix<const T> from, Matrix<T> to, const Threads& threads) const {
    each_run(to.rows, threads, [&](Index row, const Run& run) {
      const Run back{run.output, run.input, run.cols, run.rows, run.output_step, run.input_step};
      copy_run(from.row(row) + back.input, back.input_step, to.row(row) + back.output, back.output_step, back);
    });
  }

 private:
  // Entry (i, j) of `rows` by `cols` lies at output + i * output_step + j and at input + j * input_step + i; where
  // input_step is 0 there is one row, and both sides are contiguous.
  struct Run {
    Index input, output, rows, cols, input_step, output_step;
  };
  template <class T>
  static void copy_run(const T* x, Index x_step, T* out, Index out_step, const Run& run) {
    if (x_step == 0 || out_step == 0) {
      std::copy_n(x, std::max(run.rows, run.cols), out);
      return;
    }
    for (Index first = 0; first < run.cols; first += kBlock) {
      const Index last = std::min(first + kBlock, run.cols);
      for (Index i = 0; i < run.rows; ++i) {
        for (Index j = first; j < last; ++j) {
          out[i * out_step + j] = x[j * x_step + i];
        }
      }
    }
  }

  // Axes that stay neighbours are one.
  void add_axis(Index length, Index step) {
    if (!lengths_.empty() && steps_.back() == length * step) {
      lengths_.back() *= length;
      steps_.back() = step;
    } else if (length > 1) {
      lengths_.push_back(length);
      steps_.push_back(step);
    }
  }

  // Runs along the output's last axis, kBlock of them side by side along the axis that is the input's last.
  template <class Body>
  void each_run(Index rows, const Threads& threads, Body body) const {
    const bool same = across_ + 1 == lengths_.size();  // the last axis is the last of both
    const Index cols = lengths_.back(), width = same ? 1 : lengths_[across_];
    const Index blocks = (width + kBlock - 1) / kBlock, runs = size_ / cols / width * blocks;
    const Index at_once = std::max<Index>(1, kPiece / (cols * std::min(width, kBlock)));
    const Index parts = (runs + at_once - 1) / at_once;
    parallel_for(rows * parts, threads.alone_if(rows * size_ < 2 * kPiece), [&](Index task) {
      const Index first = task % parts * at_once;
      for (Index number = first; number < std::min(first + at_once, runs); ++number) {
        const Index begin = number % blocks * kBlock;
        Run run{begin, 0, std::min(kBlock, width - begin), cols, same ? 0 : steps_.back(), 0};
        Index rest = number / blocks, step = cols;  // of the output
        for (std::size_t axis = lengths_.size() - 1; axis-- > 0; step *= lengths_[axis]) {
          if (!same && axis == across_) {
            run.output_step = step;
            run.output += begin * step;
            continue;
          }
          const Index at = rest % lengths_[axis];
          rest /= lengths_[axis];
          run.input += at * steps_[axis];
          run.output += at * step;
        }
        body(task / parts, run);
      }
    });
  }

  static constexpr Index kBlock = 32;
  std::vector<Index> lengths_, steps_;  // of the output's axes: how long, and the step in the input
  std::size_t across_ = 0;              // the output's axis that is the input's last
  Index size_ = 1;
};

}  // namespace pylrp
