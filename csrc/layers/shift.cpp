// A constant that is added: one of the network (a table of positions), or one of the call (a mask of padding).
//
//   y = x + m,   R_x = x R / stab(y),   the ledger takes m R / stab(y)
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "base/pieces.hpp"
#include "layers/registry.hpp"
#include "rules/kernel_args.hpp"
#include "rules/stabilizer.hpp"

namespace pylrp {
namespace {

// An entry of the constant that is the largest number there is closes its place: the sum is -inf, and takes nothing.
// (-inf itself is not let in, as no infinite number of an input is.)
template <class T>
class ShiftLayer : public Layer<T> {
 public:
  // lengths: of the axes of a sample; steps: those of the constant, 0 where it is the same along an axis. given: the
  // constant, or empty: it is the second input.
  ShiftLayer(std::vector<Index> lengths, std::vector<Index> steps, std::vector<T> given, bool position)
      : lengths_(std::move(lengths)), steps_(std::move(steps)), given_(std::move(given)), position_(position) {}
  Flow flow() const override { return Flow::kProportional; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override {
    bool fit = inputs.size() == (given_.empty() ? 2 : 1) && inputs[0] == output && lengths_.size() == steps_.size() &&
               !lengths_.empty();
    Index size = 1, last = 0;
    for (std::size_t axis = 0; fit && axis < lengths_.size(); ++axis) {
      fit = lengths_[axis] > 0 && steps_[axis] >= 0 && steps_[axis] <= kMostEntries;
      size = checked_product({size, lengths_[axis]}, "a shift");
      last += fit ? checked_product({lengths_[axis] - 1, steps_[axis]}, "a shift") : 0;
    }
    require_fit(fit && size == output && last < (given_.empty() ? inputs[1] : static_cast<Index>(given_.size())),
                "a value and what is added");
  }

  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
               const Threads& threads) const override {
    each_line(output.rows, threads, [&](Index, Index row, Index line, Index at) {
      const T* const x = inputs[0].row(row) + line * lengths_.back();
      const T* const m = constant(inputs, row) + at;
      T* const out = output.row(row) + line * lengths_.back();
      for (Index i = 0; i < lengths_.back(); ++i) {
        out[i] = sum(x[i], m[i * steps_.back()]);
      }
    });
  }
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override {
    const Stabilizer<T> stabilizer(job.rule);
    const Index parts = parts_of_lines();
    std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(job.relevance.rows * parts));
    each_line(job.relevance.rows, threads, [&](Index task, Index row, Index line, Index at) {
      const Index first = line * lengths_.back();
      const T* const r = job.relevance.row(row) + first;
      const T* const x = job.inputs[0].row(row % job.batch) + first;
      const T* const m = constant(job.inputs, row % job.batch) + at;
      T* const out = job.results[0].row(row) + first;
      kernels::Absorbed& page = lost[static_cast<std::size_t>(task)];
      double kept = 0;
      for (Index i = 0; i < lengths_.back(); ++i) {
        const T y = sum(x[i], m[i * steps_.back()]);
        if (std::isinf(y)) {
          kept += static_cast<double>(r[i]);
          out[i] = T(0);
          continue;
        }
        const T q = stabilizer.share(r[i], y, &page);
        out[i] = x[i] * q;
        kept += y == 0 ? 0 : static_cast<double>(m[i * steps_.back()]) * static_cast<double>(q);
      }
      (position_ ? page.position : page.constant) += kept;
    });
    for (std::size_t task = 0; task < lost.size(); ++task) {
      add_absorbed(lost[task], &job.absorbed[static_cast<Index>(task) / parts]);
    }
    for (Index row = 0; job.results.size() > 1 && job.results[1] && row < job.results[1].rows; ++row) {
      std::fill_n(job.results[1].row(row), job.results[1].cols, T(0));
    }
  }

 private:
  static T sum(T x, T m) { return m >= std::numeric_limits<T>::max() ? -std::numeric_limits<T>::infinity() : x + m; }
  const T* constant(const std::vector<Matrix<const T>>& inputs, Index row) const {
    return given_.empty() ? inputs[1].row(row) : given_.data();
  }
  Index lines() const {
    Index count = 1;
    for (std::size_t axis = 0; axis + 1 < lengths_.size(); ++axis) {
      count *= lengths_[axis];
    }
    return count;
  }
  Index lines_at_once() const { return std::max<Index>(1, kPiece / lengths_.back()); }
  Index parts_of_lines() const { return (lines() + lines_at_once() - 1) / lines_at_once(); }

  // body(task, row, line, where the constant's entries begin): lines along the last axis.
  template <class Body>
  void each_line(Index rows, const Threads& threads, Body body) const {
    const Index all = lines(), at_once = lines_at_once(), parts = parts_of_lines();
    parallel_for(rows * parts, threads.alone_if(rows * all * lengths_.back() < 2 * kPiece), [&](Index task) {
      const Index first = task % parts * at_once;
      for (Index line = first; line < std::min(first + at_once, all); ++line) {
        Index at = 0, rest = line;
        for (std::size_t axis = lengths_.size() - 1; axis-- > 0;) {
          at += rest % lengths_[axis] * steps_[axis];
          rest /= lengths_[axis];
        }
        body(task, task / parts, line, at);
      }
    });
  }

  std::vector<Index> lengths_, steps_;
  std::vector<T> given_;
  bool position_;
};

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  return std::make_unique<ShiftLayer<T>>(fields.integers("lengths"), fields.integers("steps"),
                                         fields.has("shift") ? fields.vector("shift") : std::vector<T>{},
                                         fields.flag("position"));
}

}  // namespace

void register_shift(LayerKinds* kinds) { kinds->add("shift", make<float>, make<double>); }

}  // namespace pylrp
