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
      lengths_.push_back(shape[at]);
      steps_.push_back(steps[at]);
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
    each_line(output.rows, threads, [&](Index row, Index line, Index from, Index step) {
      const T* const x = inputs[0].row(row) + from;
      T* const out = output.row(row) + line * lengths_.back();
      for (Index i = 0; i < lengths_.back(); ++i) {
        out[i] = x[i * step];
      }
    });
  }
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override {
    each_line(job.relevance.rows, threads, [&](Index row, Index line, Index to, Index step) {
      const T* const r = job.relevance.row(row) + line * lengths_.back();
      T* const out = job.results[0].row(row) + to;
      for (Index i = 0; i < lengths_.back(); ++i) {
        out[i * step] = r[i];
      }
    });
  }

 private:
  // body(row, line, where its first entry lies in the input, the input's step): lines along the output's last axis.
  template <class Body>
  void each_line(Index rows, const Threads& threads, Body body) const {
    const Index lines = size_ / lengths_.back(), at_once = std::max<Index>(1, kPiece / lengths_.back());
    const Index parts = (lines + at_once - 1) / at_once;
    parallel_for(rows * parts, threads.alone_if(rows * size_ < 2 * kPiece), [&](Index task) {
      const Index first = task % parts * at_once;
      for (Index line = first; line < std::min(first + at_once, lines); ++line) {
        Index from = 0, rest = line;
        for (std::size_t axis = lengths_.size() - 1; axis-- > 0;) {
          from += rest % lengths_[axis] * steps_[axis];
          rest /= lengths_[axis];
        }
        body(task / parts, line, from, steps_.back());
      }
    });
  }

  std::vector<Index> lengths_, steps_;  // of the output's axes: how long, and the step in the input
  Index size_ = 1;
};

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  return std::make_unique<PermuteLayer<T>>(fields.integers("shape"), fields.integers("order"));
}

}  // namespace

void register_permute(LayerKinds* kinds) { kinds->add("permute", make<float>, make<double>); }

}  // namespace pylrp
