// The steps of a convolution's forward pass and relevance, and what they are made of:
//   products    sums over the taps of each position, in either direction         conv_sums()
//   forward     output = sums + bias
//   shares      s = R / z of every group of the rule from its sums               ShareWriter, SliceLedger
//   backward    R_in from s                                                     backward_general()
// conv.cpp has the general case of each. A fast path replaces one step, or all of relevance; conv.cpp asks the paths
// that the plan lists, in order, and does the step itself where none applies.
#pragma once

#include <functional>
#include <vector>

#include "kernels/table.hpp"
#include "layers/conv/fast_paths.hpp"
#include "layers/conv/weights.hpp"
#include "layers/layer.hpp"
#include "products/taps.hpp"
#include "rules/kernel_args.hpp"

namespace pylrp {

template <class T>
struct ConvForm;  // plan.hpp

// One call of relevance(): what every step reads.
template <class T>
struct ConvCall {
  const ConvWeights<T>& weights;
  const ConvForm<T>& form;
  const LoweredRule& rule;  // of the form
  const RelevanceJob<T>& job;
  Threads threads;

  bool output_is_sum() const;  // of the rule, and the output is at hand (plan.hpp)
};

// Samples [begin, begin + samples) of a job, targets [first, first + targets).
struct BatchSlice {
  Index begin, samples, first, targets;
  Index rows() const { return targets * samples; }
  template <class T>
  Index row(const RelevanceJob<T>& job, Index target, Index sample) const {
    return (first + target) * job.batch + begin + sample;
  }
};

// --- products ---

// One direction of a layer: sums over the taps of each walk, handed to `done` block by block and channels by channels.
template <class T>
struct ConvSums {
  const ConvWeights<T>* weights;
  Direction direction;
  Index samples;
  std::vector<TapProduct<T>> products;
  Index outputs;
  // task counts up over walks; stride: of a row of the sums.
  std::function<void(Index task, const Rows&, Index column, Index columns, const SumsOf<T>&, Index stride)> done;

  Index apart = 0;  // of the samples' pairs (products/taps.hpp): runs may lie two by two then, Run::every rows apart

  bool to_out() const { return (direction == Direction::kForward) != weights->transposed; }
  std::vector<Walk> walks() const { return to_out() ? walks_to_out(weights->shape) : walks_to_in(weights->shape); }
};
template <class T>
void conv_sums(const ConvSums<T>& sums, const Threads& threads);
// How many tasks they will count.
template <class T>
Index conv_tasks(const ConvSums<T>& sums);

// --- shares ---

// What the denominators of a rule hold besides the sums, one entry an entry of the bias.
template <class T>
struct ShareConstants {
  GroupConstants<T> biases;
  kernels::Shares<T> args;
  // sum_has_bias: the one sum is the layer's output, which holds its bias already.
  ShareConstants(const ConvWeights<T>& w, const LoweredRule& rule, bool sum_has_bias);
};

// Writes s of a slice, (groups, targets, samples, size of the output), from complete sums.
template <class T>
class ShareWriter {
 public:
  ShareWriter(const ConvCall<T>& call, const BatchSlice& slice, bool sum_has_bias, T* shares)
      : call_(call), slice_(slice), constants_(call.weights, call.rule, sum_has_bias), shares_(shares) {}
  // z[q]: sum q of the run's rows, `columns` channels from `column` on; lost: one a target, added to.
  void write(const Run& run, Index column, Index columns, const T* const* z, Index z_stride,
             kernels::Absorbed* lost) const;

 private:
  void write_rows(const Run& run, Index column, Index columns, const T* const* z, Index z_stride,
                  kernels::Absorbed* lost) const;
  const ConvCall<T>& call_;
  const BatchSlice& slice_;
  ShareConstants<T> constants_;
  T* shares_;
};

// What is lost on the way, kept apart by tasks and added up in their order: the same bits for any number of threads.
template <class T>
class SliceLedger {
 public:
  SliceLedger(const BatchSlice& slice, const ConvSums<T>& sums);
  // The entries, one a target, of a run of a task's block.
  kernels::Absorbed* at(Index task, const Rows& block, const Run& run);
  void add_to(const RelevanceJob<T>& job) const;

 private:
  const BatchSlice& slice_;
  Index tasks_, samples_;  // a task's block meets at most so many samples
  std::vector<kernels::Absorbed> lost_;
  std::vector<Index> first_sample_;  // of a task's block
};
// The entries of a (sample, target) of the slice go to the job's.
template <class T>
void add_lost(const RelevanceJob<T>& job, const BatchSlice& slice, Index sample, const kernels::Absorbed* lost);

// The images that the rule's sums read; positive and negative parts are made once.
template <class T>
class InputPartImages {
 public:
  InputPartImages(const ConvCall<T>& call, const BatchSlice& slice);
  Image<T> image(Part part) const;

 private:
  Index channels_, size_;
  Matrix<const T> input_;
  Bounds<T> bounds_;
  Buffer<T> positive_, negative_, magnitude_, ones_;
};
// The first `count` sums of the rule; the caller sets `done`.
template <class T>
ConvSums<T> sums_of_rule(const ConvCall<T>& call, const BatchSlice& slice, const InputPartImages<T>& images,
                         std::size_t count);

// --- backward ---

// R_in of a slice from its shares, by the first path that the form lists, or in general.
template <class T>
void send_back(const ConvCall<T>& call, const BatchSlice& slice, const T* shares);

}  // namespace pylrp
