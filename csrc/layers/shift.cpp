// A constant that is added: one of the network (a table of positions), or one of the call (a mask of padding); and a
// constant of the call that is a factor.
//
//   shift   y = x + m,   R_x = x R / stab(y),   the ledger takes m R / stab(y)
//   factor  y = x m,     R_x = R, where m is not 0
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

// A sample as lines along its last axis, and where a constant that broadcasts to it begins on each.
class Lines {
 public:
  // lengths: of the axes of a sample; steps: those of the constant, 0 where it is the same along an axis.
  Lines(std::vector<Index> lengths, std::vector<Index> steps) : lengths_(std::move(lengths)), steps_(std::move(steps)) {
    require_fit(lengths_.size() == steps_.size() && !lengths_.empty(), "the axes of a constant");
    for (std::size_t axis = 0; axis < lengths_.size(); ++axis) {
      require_fit(lengths_[axis] > 0 && steps_[axis] >= 0 && steps_[axis] <= kMostEntries, "the axes of a constant");
      size_ = checked_product({size_, lengths_[axis]}, "a value");
      last_ += checked_product({lengths_[axis] - 1, steps_[axis]}, "a constant");
    }
  }
  bool fit(Index value, Index constant) const { return size_ == value && last_ < constant; }
  Index length() const { return lengths_.back(); }
  Index step() const { return steps_.back(); }
  Index parts() const { return (count() + at_once() - 1) / at_once(); }

  // body(task, row, where the line begins, where the constant's entries do): parts() tasks a row.
  template <class Body>
  void each(Index rows, const Threads& threads, Body body) const {
    some_at_once(rows * parts(), size_, threads.alone_if(rows * size_ < 2 * kPiece), [&](Index task) {
      const Index first = task % parts() * at_once();
      for (Index line = first; line < std::min(first + at_once(), count()); ++line) {
        Index at = 0, rest = line;
        for (std::size_t axis = lengths_.size() - 1; axis-- > 0;) {
          at += rest % lengths_[axis] * steps_[axis];
          rest /= lengths_[axis];
        }
        body(task, task / parts(), line * length(), at);
      }
    });
  }

 private:
  Index count() const { return size_ / length(); }
  Index at_once() const { return std::max<Index>(1, kPiece / length()); }

  std::vector<Index> lengths_, steps_;
  Index size_ = 1, last_ = 0;
};

// An entry of the constant that is the largest number there is closes its place: the sum is -inf, and takes nothing.
// (-inf itself is not let in, as no infinite number of an input is.)
template <class T>
class ShiftLayer : public Layer<T> {
 public:
  // given: the constant, or empty: it is the second input.
  ShiftLayer(Lines lines, std::vector<T> given, bool position)
      : lines_(std::move(lines)), given_(std::move(given)), position_(position) {}
  Flow flow() const override { return Flow::kProportional; }
  bool hands_to(std::size_t input, const CompiledRule*) const override { return input == 0; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override {
    require_fit(inputs.size() == (given_.empty() ? 2 : 1) && inputs[0] == output &&
                    lines_.fit(output, given_.empty() ? inputs[1] : static_cast<Index>(given_.size())),
                "a value and what is added");
  }

  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
               const Threads& threads) const override {
    lines_.each(output.rows, threads, [&](Index, Index row, Index first, Index at) {
      const T* const x = inputs[0].row(row) + first;
      const T* const m = constant(inputs, row) + at;
      T* const out = output.row(row) + first;
      for (Index i = 0; i < lines_.length(); ++i) {
        out[i] = sum(x[i], m[i * lines_.step()]);
      }
    });
  }
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override {
    const Stabilizer<T> stabilizer(job.rule);
    std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(job.relevance.rows * lines_.parts()));
    lines_.each(job.relevance.rows, threads, [&](Index task, Index row, Index first, Index at) {
      const T* const r = job.relevance.row(row) + first;
      const T* const x = job.inputs[0].row(row % job.batch) + first;
      const T* const m = constant(job.inputs, row % job.batch) + at;
      T* const out = job.results[0].row(row) + first;
      kernels::Absorbed& page = lost[static_cast<std::size_t>(task)];
      double kept = 0;
      for (Index i = 0; i < lines_.length(); ++i) {
        const T y = sum(x[i], m[i * lines_.step()]);
        if (std::isinf(y)) {
          kept += static_cast<double>(r[i]);
          out[i] = T(0);
          continue;
        }
        const T q = stabilizer.share(r[i], y, &page);
        out[i] = x[i] * q;
        kept += y == 0 ? 0 : static_cast<double>(m[i * lines_.step()]) * static_cast<double>(q);
      }
      (position_ ? page.position : page.constant) += kept;
    });
    add_absorbed(lost, lines_.parts(), job.absorbed);
  }

 private:
  static T sum(T x, T m) { return m >= std::numeric_limits<T>::max() ? -std::numeric_limits<T>::infinity() : x + m; }
  const T* constant(const std::vector<Matrix<const T>>& inputs, Index row) const {
    return given_.empty() ? inputs[1].row(row) : given_.data();
  }

  Lines lines_;
  std::vector<T> given_;
  bool position_;
};

template <class T>
class FactorLayer : public Layer<T> {
 public:
  explicit FactorLayer(Lines lines) : lines_(std::move(lines)) {}
  Flow flow() const override { return Flow::kRouted; }
  bool hands_to(std::size_t input, const CompiledRule*) const override { return input == 0; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override {
    require_fit(inputs.size() == 2 && inputs[0] == output && lines_.fit(output, inputs[1]), "a value and its factor");
  }

  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
               const Threads& threads) const override {
    lines_.each(output.rows, threads, [&](Index, Index row, Index first, Index at) {
      const T* const x = inputs[0].row(row) + first;
      const T* const m = inputs[1].row(row) + at;
      T* const out = output.row(row) + first;
      for (Index i = 0; i < lines_.length(); ++i) {
        out[i] = x[i] * m[i * lines_.step()];
      }
    });
  }
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override {
    std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(job.relevance.rows * lines_.parts()));
    lines_.each(job.relevance.rows, threads, [&](Index task, Index row, Index first, Index at) {
      const T* const r = job.relevance.row(row) + first;
      const T* const m = job.inputs[1].row(row % job.batch) + at;
      T* const out = job.results[0].row(row) + first;
      for (Index i = 0; i < lines_.length(); ++i) {
        const bool open = m[i * lines_.step()] != 0;
        out[i] = open ? r[i] : T(0);
        lost[static_cast<std::size_t>(task)].dead += open ? 0 : static_cast<double>(r[i]);
      }
    });
    add_absorbed(lost, lines_.parts(), job.absorbed);
  }

 private:
  Lines lines_;
};

template <class T>
std::unique_ptr<Layer<T>> make_shift(const std::string&, const Fields<T>& fields) {
  return std::make_unique<ShiftLayer<T>>(Lines(fields.integers("lengths"), fields.integers("steps")),
                                         fields.has("shift") ? fields.vector("shift") : std::vector<T>{},
                                         fields.flag("position"));
}

template <class T>
std::unique_ptr<Layer<T>> make_factor(const std::string&, const Fields<T>& fields) {
  return std::make_unique<FactorLayer<T>>(Lines(fields.integers("lengths"), fields.integers("steps")));
}

}  // namespace

void register_shift(LayerKinds* kinds) {
  kinds->add("shift", make_shift<float>, make_shift<double>);
  kinds->add("factor", make_factor<float>, make_factor<double>);
}

}  // namespace pylrp
