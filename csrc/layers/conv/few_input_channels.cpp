// The backward pass to an image of few channels (RGB), as in front of most networks. With channels as the columns of
// the product most SIMD lanes would be idle. Instead each position of the output computes what it sends to all its
// taps, (taps, channels) side by side, and each pixel of the input gathers what was sent to it (col2im).
#include <algorithm>

#include "kernels/dispatch.hpp"
#include "layers/conv/patches.hpp"
#include "layers/conv/plan.hpp"
#include "products/panels.hpp"

namespace pylrp {
namespace {

constexpr Index kSentBytes = Index{16} << 20;  // of what is sent, at a time
constexpr Index kPositions = 112;              // a task: a multiple of every tile's rows, or nearly

template <class T>
bool may_run(const ConvWeights<T>& w, const LoweredRule& rule) {
  const Index lanes = kernels::table<T>().tile_cols / 2, taps = w.shape.taps(), channels = w.source_channels();
  return !rule.back.empty() && !w.transposed && !w.depthwise() && w.shape.groups == 1 && taps > 1 &&
         2 * channels <= lanes && taps * channels <= 16 * lanes && w.target_channels() >= lanes;
}

// A slice of the backward pass: row r of it is sample r % samples of target r / samples.
template <class T>
class ToFewChannels {
 public:
  ToFewChannels(const ConvCall<T>& call, const BatchSlice& slice, const T* shares);
  void run();

 private:
  void send(Index first, Index rows) const;
  void gather(Index first, Index rows) const;
  T* page(Index row, int sum) const { return memory_.data() + (row * mixed_.count + sum) * positions_ * stride_; }

  const ConvCall<T>& call_;
  const ConvShape& shape_;
  const BatchSlice& slice_;
  const T* shares_;
  Index channels_, depth_, positions_;
  Index stride_;  // of what a position sends
  PanelSet<T> panels_;
  std::vector<std::size_t> backward_;  // panels of each back product
  kernels::Mixed<T> mixed_;            // factors of each sum
  Patches<T> patches_;
  Buffer<T> memory_;  // (rows at a time, sums, positions, stride)
};

// All taps of an output channel are one row of the weights: a dense layer at every position.
template <class T>
ToFewChannels<T>::ToFewChannels(const ConvCall<T>& call, const BatchSlice& slice, const T* shares)
    : call_(call),
      shape_(call.weights.shape),
      slice_(slice),
      shares_(shares),
      channels_(shape_.in_channels),
      depth_(shape_.out_channels),
      positions_(count(shape_.out)),
      stride_(padded(call.weights.row_size(), kernels::table<T>().tile_cols)),
      panels_(call.weights.matrix(), call.threads.workspace, Operands<T>(call.threads.bfloat16)),
      patches_(shape_) {
  mixed_.count = 0;
  for (std::size_t b = 0; b < call.rule.back.size(); ++b) {
    backward_.push_back(panels_.add(call.rule.back[b].map, Direction::kBackward));
    if (!call.rule.joins(b)) {
      mixed_.mix[mixed_.count++] = mix_of<T>(call.rule.back[b]);
    }
  }
  panels_.pack(call.threads);
}

template <class T>
void ToFewChannels<T>::run() {
  const Index rows = slice_.rows(), row_size = mixed_.count * positions_ * stride_;
  const Index at_once = std::clamp<Index>(kSentBytes / (row_size * Index(sizeof(T))), 1, rows);
  memory_.reset(at_once * row_size, call_.threads.workspace);
  for (Index first = 0; first < rows; first += at_once) {
    send(first, std::min(at_once, rows - first));
    gather(first, std::min(at_once, rows - first));
  }
}

template <class T>
void ToFewChannels<T>::send(Index first, Index rows) const {
  const LoweredRule& rule = call_.rule;
  const Index parts = (positions_ + kPositions - 1) / kPositions;
  parallel_for(rows * parts, call_.threads, [&](Index task) {
    const Index row = task / parts, begin = positions_ * (task % parts) / parts;
    const Index height = positions_ * (task % parts + 1) / parts - begin;
    int sum = -1;
    for (std::size_t b = 0; b < rule.back.size(); ++b) {
      sum += rule.joins(b) ? 0 : 1;
      const T* const s = shares_ + ((rule.back[b].group * slice_.rows() + first + row) * positions_ + begin) * depth_;
      multiply_by_panels(s, depth_, height, panels_.backward(backward_[b]), rule.joins(b),
                         page(row, sum) + begin * stride_, stride_);
    }
  });
}

template <class T>
void ToFewChannels<T>::gather(Index first, Index rows) const {
  const RelevanceJob<T>& job = call_.job;
  const Index lines = patches_.lines(), size = shape_.in[2] * channels_;
  parallel_for(rows * lines, call_.threads, [&](Index task) {
    const Index row = task / lines, line = task % lines, at = line * size;
    const Buffer<T> gathered(mixed_.count * size);
    kernels::Mixed<T> mixed = mixed_;
    for (int sum = 0; sum < mixed.count; ++sum) {
      patches_.gather(page(row, sum), stride_, line, gathered.data() + sum * size);
      mixed.acc[sum] = gathered.data() + sum * size;
    }
    const Index target = (first + row) / slice_.samples, sample = (first + row) % slice_.samples;
    kernels::table<T>().accumulate({.rows = 1,
                                    .cols = size,
                                    .mixed = mixed,
                                    .acc_stride = size,
                                    .a = job.inputs[0] ? job.inputs[0].row(slice_.begin + sample) + at : nullptr,
                                    .a_stride = size,
                                    .low = job.bounds.low ? job.bounds.low + at : nullptr,
                                    .high = job.bounds.high ? job.bounds.high + at : nullptr,
                                    .bound_stride = size,
                                    .add = false,
                                    .out = job.results[0].row(slice_.row(job, target, sample)) + at,
                                    .out_stride = size});
  });
}

template <class T>
void run(const ConvCall<T>& call, const BatchSlice& slice, const T* shares) {
  ToFewChannels<T>(call, slice, shares).run();
}

}  // namespace

template <class T>
BackwardPath<T> few_input_channels() {
  return {ConvPath::kFewInputChannels, may_run<T>, run<T>};
}

template BackwardPath<float> few_input_channels<float>();
template BackwardPath<double> few_input_channels<double>();

}  // namespace pylrp
