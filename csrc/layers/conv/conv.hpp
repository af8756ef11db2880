// Convolution in one to three dimensions, with stride, padding, dilation and groups, and its transpose.
//   conv.cpp                forward pass and relevance from products over taps
//   sum_by_subtraction.hpp  what these read; alpha-beta behind a ReLU
//   depthwise.cpp           the same where every channel is its own group
//   conv_1x1.cpp            the same where the kernel is one position
//   few_input_channels.cpp  the way back to few channels
// They read the weights as (out_channels, taps, in_channels of a group): in one direction a row is a row of a dense
// layer, in the other a tap is a matrix.
#pragma once

#include <vector>

#include "layers/layer.hpp"
#include "products/taps.hpp"
#include "rules/kernel_args.hpp"

namespace pylrp {

template <class T>
struct ConvWeights {
  ConvShape shape;
  bool transposed;                // the layer goes from shape.out to shape.in
  const T* weight;                // (out_channels, taps, in_channels / groups); depthwise (taps, channels)
  const T* bias;                  // one a channel of the layer's output, or null
  bool bias_by_position = false;  // one an entry of the output instead: what is folded into a padded convolution

  bool depthwise() const { return shape.group_in() == 1 && shape.group_out() == 1 && shape.groups > 1; }
  // A kernel of one that meets every position once, with one bias for all of them.
  bool pointwise() const {
    return !transposed && !bias_by_position && shape.groups == 1 && shape.taps() == 1 && shape.in == shape.out &&
           shape.stride == Axes{1, 1, 1} && shape.pad == Axes{0, 0, 0};
  }
  // (out_channels, taps * in_channels / groups)
  Matrix<const T> matrix() const {
    const Index cols = shape.taps() * shape.group_in();
    return {weight, shape.out_channels, cols, cols};
  }
  const Axes& source() const { return transposed ? shape.out : shape.in; }
  const Axes& target() const { return transposed ? shape.in : shape.out; }
  Index source_channels() const { return transposed ? shape.out_channels : shape.in_channels; }
  Index target_channels() const { return transposed ? shape.in_channels : shape.out_channels; }
  Index source_size() const { return count(source()) * source_channels(); }
  Index target_size() const { return count(target()) * target_channels(); }
  Index bias_size() const { return bias_by_position ? target_size() : target_channels(); }
  // Entries of the bias from one position to the next.
  Index bias_step() const { return bias_by_position ? target_channels() : 0; }
  Index products() const {  // of large ones, at least kMostEntries
    return bounded_product({count(shape.out), shape.taps(), shape.group_in(), shape.out_channels});
  }
};

template <class T>
class ConvLayer : public Layer<T> {
 public:
  explicit ConvLayer(const ConvWeights<T>& weights) : weights_(weights) {}
  Flow flow() const override { return Flow::kRule; }
  bool clamps() const override { return true; }
  bool relevance_in_place() const override { return true; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  Index products() const override { return weights_.products(); }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;
  bool reads_inputs(const CompiledRule* rule) const override;
  bool reads_output(const CompiledRule* rule, bool at_hand) const override;

 private:
  ConvWeights<T> weights_;
};

// --- between the files of this room ---

// One direction of a layer: sums over the taps of each walk, handed to `done` block by block and channels by channels.
template <class T>
struct ConvSums {
  const ConvWeights<T>* weights;
  bool up;  // from the layer's input to its output
  Index samples;
  std::vector<TapProduct<T>> products;
  Index outputs;
  // task counts up over walks; stride: of a row of the sums.
  std::function<void(Index task, const Rows&, Index column, Index columns, const SumsOf<T>&, Index stride)> done;

  std::vector<Walk> walks() const {
    return up == weights->transposed ? walks_to_in(weights->shape) : walks_to_out(weights->shape);
  }
};
template <class T>
void conv_sums(const ConvSums<T>& sums, const Threads& threads);
// Rows of a depthwise task: few, so that their sums stay in the L1 cache and small images make several tasks.
inline Index depthwise_tasks(Index rows, Index channels) {
  const Index together = std::clamp<Index>(4096 / std::max<Index>(channels, 1), 28, 224);
  return (rows + together - 1) / together;
}
template <class T>
void depthwise_sums(const ConvSums<T>& sums, const Threads& threads);
// How many tasks they will count.
template <class T>
Index conv_tasks(const ConvSums<T>& sums);

// The constants of shares(): biases per group of the rule, as many as the bias has entries. reuse: the output stands
// for the one sum.
template <class T>
struct ChannelBases {
  GroupConstants<T> constants;
  kernels::Shares<T> plan;
  ChannelBases(const ConvWeights<T>& w, const LoweredRule& rule, bool reuse);
};

// Samples [begin, begin + samples) of a job, targets [first, first + targets).
template <class T>
struct PartOfJob {
  Index begin, samples, first, targets;
  Index row(const RelevanceJob<T>& job, Index target, Index sample) const {
    return (first + target) * job.batch + begin + sample;
  }
};

template <class T>
void pointwise_forward(const ConvWeights<T>& w, Matrix<const T> input, Matrix<T> output, const Clamp<T>& clamp,
                       const Threads& threads);
template <class T>
void pointwise_relevance(const ConvWeights<T>& w, const LoweredRule& rule, bool reuse, const RelevanceJob<T>& job,
                         const Threads& threads);

// Few source channels, many target channels; then R_in of a part from its shares, (groups, targets, samples, target).
template <class T>
bool is_narrow(const ConvWeights<T>& w);
template <class T>
void spread_to_few(const ConvWeights<T>& w, const LoweredRule& rule, const RelevanceJob<T>& job,
                   const PartOfJob<T>& part, const T* shares, const Threads& threads);

}  // namespace pylrp
