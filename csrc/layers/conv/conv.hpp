// Convolution in one to three dimensions, with stride, padding, dilation and groups, and its transpose.
//   weights.hpp      the weights
//   steps.*          the steps of a forward pass and of relevance, which conv.cpp does and a fast path may replace
//   conv.cpp         the general case of every step: right alone, for all weights and rules
//   plan.*           which fast paths may run for a rule, made once; fast_paths.* counts their runs
// Fast paths, each a file that can be switched off (CMakeLists.txt, PYLRP_CONV_*) or deleted:
//   by_contribution      signed inputs, and few outputs with relevance or few channels of the input: no products
//   contributing         some positions of that; patches: of an image with few channels, for few_input_channels, too
//   positions_in_lanes   the forward pass of a kernel of one with few positions: weights are read where they stand
//   fused_1x1            a kernel of one: sums, shares and relevance of some positions at a time, in cache
//   signs_by_magnitude   the same for alpha-beta: contributions above and below zero from W a and |W| |a|
//   depthwise            every channel is its own group
//   depthwise_lines      the same down the image, sums, shares and relevance line by line, in cache
//   pack_in_tasks        few rows: a task packs the weights that it needs itself (in products/taps.cpp)
//   output_as_sum        the layer's output is the rule's sum
//   one_of_four          the sums below a pool of 2 x 2, where of four positions one has relevance
//   sum_by_subtraction   the second of two sums is what the first leaves of the output
//   few_input_channels   the backward pass to an image of few channels
//   taps_by_magnitude    inputs of both signs, from W a and |W| |a|, for any kernel
//   uniform_weights      rules that read every weight as 1: a layer of one channel
#pragma once

#include <memory>
#include <vector>

#include "layers/conv/weights.hpp"
#include "layers/layer.hpp"

namespace pylrp {

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
  bool reads_output_of_signed(const CompiledRule* rule, bool at_hand) const override;
  std::unique_ptr<Prepared> prepare(const CompiledRule& rule, const Bounds<T>& bounds,
                                    const Threads& threads) const override;

 private:
  ConvWeights<T> weights_;
};

}  // namespace pylrp
