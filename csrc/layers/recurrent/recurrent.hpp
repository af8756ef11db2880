// Recurrent layers: one or two directions over the steps of a sequence.
//
// make_recurrent.cpp reads the description, cell.* has the equations of a step, sweep.cpp the forward pass over the
// steps, relevance.cpp the way back, back.* a step of it.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "base/buffer.hpp"
#include "kernels/cells.hpp"
#include "layers/layer.hpp"
#include "layers/recurrent/cell.hpp"
#include "products/panels.hpp"

namespace pylrp {

// One direction: its cell and its weights, packed once. Sums are (samples, weights' rows padded to whole panels).
template <class T>
struct OneDirection {
  Cell cell;
  bool reverse = false;
  std::unique_ptr<Panels<T>> input, state,
      last_state;                                     // x W^T, h U^T; GRU: (r h) U_n^T, the gates alone are in `state`
  std::unique_ptr<Panels<T>> input_back, state_back;  // q W, q U of the cell gate's rows alone
  std::vector<T> bias;                                // of the sums; of the state's sums, too, where they are one sum
  std::vector<T> state_bias;                          // GRU with reset_after: of U h alone
  std::vector<T> peepholes;                           // LSTM, may be empty
  std::vector<T> first_h, first_c;                    // the states at the start, where they are constants; may be empty
};

// Where a sample's entries lie. Parts of the output that are not there have an offset of -1.
struct SequencePlaces {
  Index steps = 0, features = 0;
  Index x_step = 0, x_feature = 0;
  Index sequence = -1, y_step = 0, y_unit = 0;  // (steps, directions * units)
  Index last_h = -1, last_c = -1;               // (directions * units)
  bool carried = false;                         // the sequence at a step that is left out is the one before, not 0
};

// Which of the inputs are what; -1: not there.
struct RecurrentInputs {
  int lengths = -1, h = -1, c = -1;
};

template <class T>
class RecurrentLayer : public Layer<T> {
 public:
  RecurrentLayer(SequencePlaces places, RecurrentInputs inputs, std::vector<OneDirection<T>> directions)
      : places_(places), inputs_(inputs), directions_(std::move(directions)) {}
  Flow flow() const override { return Flow::kProportional; }
  Flow flow_under(const CompiledRule* rule) const override {
    return spreads(rule) ? Flow::kUnknown : Flow::kProportional;
  }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  Index products() const override;
  bool hands_to(std::size_t input, const CompiledRule*) const override {
    return static_cast<int>(input) != inputs_.lengths;
  }
  bool reads_output(const CompiledRule*, bool) const override { return true; }
  Index kept_entries(const CompiledRule* rule) const override;
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
               const Threads& threads) const override {
    sweep(inputs, output, nullptr, {}, threads);
  }
  void forward_keeping(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, Matrix<T> kept,
                       const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  class Sweep;
  class Way;

  // What a rule adds to denominators; what it takes for them and for biases goes to all inputs in equal parts.
  static double epsilon_of(const CompiledRule* rule) {
    return rule == nullptr || rule->rule().groups.empty() ? 0 : rule->rule().groups[0].epsilon;
  }
  static bool spreads(const CompiledRule* rule) { return treatment_of(rule) == Treatment::kSpread; }
  static bool is_stabilised(const CompiledRule* rule) { return epsilon_of(rule) != 0 || spreads(rule); }
  KeptArrays kept_arrays(std::size_t direction, bool stabilised) const {
    return KeptArrays(directions_[direction].cell, stabilised);
  }
  Index kept_entries(bool stabilised) const;
  Index units() const { return directions_[0].cell.units; }
  Index states() const { return static_cast<Index>(directions_.size()) * units(); }
  void sweep(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const bool* stabilised, Matrix<T> kept,
             const Threads& threads) const;

  SequencePlaces places_;
  RecurrentInputs inputs_;
  std::vector<OneDirection<T>> directions_;
};

// Samples that a task takes through all steps, and the entries of the sums that are computed ahead for some steps at a
// time: they stay in the L2 cache.
inline constexpr Index kSamplesOfSweep = 16;
inline constexpr Index kSumsAhead = Index{1} << 14;

inline Index blocks_of(Index rows) { return (rows + kSamplesOfSweep - 1) / kSamplesOfSweep; }
inline Index steps_ahead(Index rows, Index sums) {
  return std::max<Index>(1, kSumsAhead / std::max<Index>(1, rows * sums));
}

// Arrays of a task, one block: of at least 2^16 entries, so that the thread keeps it for its next call.
template <class T, std::size_t kCount>
class TaskArrays {
 public:
  explicit TaskArrays(const std::array<Index, kCount>& sizes) {
    Index total = 0;
    for (std::size_t k = 0; k < kCount; ++k) {
      starts_[k] = total;
      total += padded(sizes[k], Index{64} / Index{sizeof(T)});
    }
    block_.reset(std::max(total, Index{1} << 16));
  }
  T* operator[](std::size_t k) const { return block_.data() + starts_[k]; }

 private:
  std::array<Index, kCount> starts_;
  Buffer<T> block_;
};

// What a step will read or write next is on its way while this one is computed.
template <class T, int kForWriting>
void fetch_ahead(const T* from, Index count) {
  for (Index i = 0; i < count; i += Index{64} / Index{sizeof(T)}) {
    __builtin_prefetch(from + i, kForWriting, 2);
  }
}

// out(rows, columns) = or += x(rows, depth) times the weights, whatever is zero; few rows take several panels at a
// time. Rows of `out` hold whole panels.
template <class T>
void multiply_states(const T* x, Index x_stride, Index rows, const Panels<T>& panels, bool add, T* out,
                     Index out_stride) {
  if (rows > kernels::kFewRows) {
    return multiply_by_panels(x, x_stride, rows, panels, add, out, out_stride);
  }
  const Index width = Panels<T>::width(), depth = panels.depth();
  const Index chunks = (depth + kReductionBlock - 1) / kReductionBlock;
  for (Index c = 0; c < chunks; ++c) {
    const Index first = depth * c / chunks, count = depth * (c + 1) / chunks - first;
    kernels::cells<T>().few_rows({.rows = static_cast<int>(rows),
                                  .halves = 2 * panels.columns_of(panels.count() - 1) <= width ? 1 : 2,
                                  .k = count,
                                  .x = x + first,
                                  .x_stride = x_stride,
                                  .panel = panels.at(0) + first * width,
                                  .panel_stride = depth * width,
                                  .panels = panels.count(),
                                  .add = add || c > 0,
                                  .out = out,
                                  .out_stride = out_stride});
  }
}

// body(step, row, entry) for all, in the order in which memory lies: entries that are next to each other innermost, or
// steps, where those are.
template <class Body>
void each_entry(Index steps, Index rows, Index entries, bool entries_together, Body body) {
  if (entries_together) {
    for (Index i = 0; i < steps; ++i) {
      for (Index r = 0; r < rows; ++r) {
        for (Index j = 0; j < entries; ++j) {
          body(i, r, j);
        }
      }
    }
    return;
  }
  for (Index r = 0; r < rows; ++r) {
    for (Index j = 0; j < entries; ++j) {
      for (Index i = 0; i < steps; ++i) {
        body(i, r, j);
      }
    }
  }
}

// Is a step of a sample left out? lengths holds how many steps it has, or one number a step, 0 where it is left out.
template <class T>
bool takes_part(const Matrix<const T>& lengths, Index sample, Index step) {
  if (!lengths) {
    return true;
  }
  return lengths.cols == 1 ? static_cast<T>(step) < lengths.row(sample)[0] : lengths.row(sample)[step] != 0;
}

}  // namespace pylrp
