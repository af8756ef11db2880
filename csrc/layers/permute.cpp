// Axes in another order: a strided copy, and the copy back for relevance.
#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "base/pieces.hpp"
#include "layers/registry.hpp"

namespace pylrp {
namespace {

// Output axis i is axis order[i] of a sample of this shape.
template <class T>
class PermuteLayer : public Layer<T> {
 public:
  PermuteLayer(const std::vector<Index>& shape, const std::vector<Index>& order) {
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
  Flow flow() const override { return Flow::kRouted; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override {
    require_fit(inputs.size() == 1 && inputs[0] == output && output == size_, "a permutation and its input");
  }
  bool keeps_nonnegative() const override { return true; }
  bool reads_inputs(const CompiledRule*) const override { return false; }

  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
               const Threads& threads) const override {
    each_run(output.rows, threads, [&](Index row, const Run& run) {
      copy(inputs[0].row(row) + run.input, run.input_step, output.row(row) + run.output, run.output_step, run);
    });
  }
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override {
    each_run(job.relevance.rows, threads, [&](Index row, const Run& run) {
      const Run back{run.output, run.input, run.cols, run.rows, run.output_step, run.input_step};
      copy(job.relevance.row(row) + back.input, back.input_step, job.results[0].row(row) + back.output,
           back.output_step, back);
    });
  }

 private:
  // Entry (i, j) of `rows` by `cols` lies at output + i * output_step + j and at input + j * input_step + i; where
  // input_step is 0 there is one row, and both sides are contiguous.
  struct Run {
    Index input, output, rows, cols, input_step, output_step;
  };
  static void copy(const T* x, Index x_step, T* out, Index out_step, const Run& run) {
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

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  return std::make_unique<PermuteLayer<T>>(fields.integers("shape"), fields.integers("order"));
}

}  // namespace

void register_permute(LayerKinds* kinds) { kinds->add("permute", make<float>, make<double>); }

}  // namespace pylrp
