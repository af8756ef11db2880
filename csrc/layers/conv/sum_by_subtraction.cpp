// Alpha-beta behind a ReLU, where the output z was kept: the rule's two sums make W a, so only the first is computed
// and the second is z - bias - first. Where that cancels, the entry is computed by products of its own; where too many
// entries do, the path gives up and the general sums are computed instead.
#include <algorithm>
#include <atomic>

#include "kernels/dispatch.hpp"
#include "layers/conv/one_sum.hpp"
#include "layers/conv/plan.hpp"

namespace pylrp {
namespace {

template <class T>
bool may_run(const ConvWeights<T>& w, const LoweredRule& rule) {
  return rule.two_sums_make_plain_output() && !w.transposed && !w.depthwise() && !w.bias_by_position;
}

template <class T>
bool applies(const ConvCall<T>& call) {
  return call.job.output && call.job.output_positive;
}

// The second sum of a slice.
template <class T>
class SecondSum {
 public:
  SecondSum(const ConvCall<T>& call, const BatchSlice& slice, const InputPartImages<T>& images)
      : w_(call.weights),
        sum_(call.rule.sums[1]),
        images_(images),
        output_(call.job.output.slice(slice.begin, slice.samples)),
        most_cancelled_(output_.rows * output_.cols / 64 + 64) {}
  // Of the columns of a run: second = output - bias - first.
  void subtract(const Rows& block, const Run& run, Index column, Index columns, const T* first, Index stride,
                T* second);
  // Then computing the whole sum is less work. Decided from counts alone: independent of the order of threads.
  bool mostly_cancelled() const { return cancelled_ > most_cancelled_; }

 private:
  bool is_empty(const Walk& walk, Index row, Index column) const;

  const ConvWeights<T>& w_;
  const Sum& sum_;
  const InputPartImages<T>& images_;
  Matrix<const T> output_;
  Index most_cancelled_;
  std::atomic<Index> cancelled_{0};
};

template <class T>
void SecondSum<T>::subtract(const Rows& block, const Run& run, Index column, Index columns, const T* first,
                            Index stride, T* second) {
  const Index channels = w_.target_channels();
  std::vector<Index> cancelled(static_cast<std::size_t>(run.count * columns));
  const Index count = kernels::table<T>().left_over({.rows = run.count,
                                                     .cols = columns,
                                                     .z = output_.row(run.sample) + run.pixel * channels + column,
                                                     .z_stride = run.step * channels,
                                                     .bias = w_.bias ? w_.bias + column : nullptr,
                                                     .first = first,
                                                     .first_stride = stride,
                                                     .out = second,
                                                     .out_stride = stride,
                                                     .cancelled_at = cancelled.data()});
  cancelled.resize(static_cast<std::size_t>(count));
  // Where nothing but the bias is there, as on a black background, nothing is left: that is exact.
  Index known = -1;
  bool empty = false;
  const auto is_exact = [&](Index entry) {
    const Index row = entry / columns, at = row * stride + entry % columns;
    if (first[at] != 0 || second[at] != 0) {
      return false;
    }
    if (row != known) {
      known = row;
      empty = is_empty(block.walk(), block.begin() + run.first + row, column);
    }
    return empty;
  };
  cancelled.erase(std::remove_if(cancelled.begin(), cancelled.end(), is_exact), cancelled.end());
  if ((cancelled_ += static_cast<Index>(cancelled.size())) > most_cancelled_) {
    return;
  }
  for (const Index entry : cancelled) {
    const Index row = entry / columns, at = entry % columns;
    second[row * stride + at] = one_sum(sum_, w_, images_, block.walk(), block.begin() + run.first + row, column + at);
  }
}

template <class T>
bool SecondSum<T>::is_empty(const Walk& walk, Index row, Index column) const {
  bool empty = true;
  each_source_of(sum_, w_, images_, walk, row, column, [&](const WeightMap&, Index, const T* x) {
    empty = empty && std::all_of(x, x + w_.shape.group_in(), [](T value) { return value == 0; });
  });
  return empty;
}

template <class T>
bool run(const ConvCall<T>& call, const BatchSlice& slice, T* shares) {
  const InputPartImages<T> images(call, slice);
  ConvSums<T> sums = sums_of_rule(call, slice, images, 1);
  SecondSum<T> second(call, slice, images);
  SliceLedger<T> lost(slice, sums);
  const ShareWriter<T> writer(call, slice, false, shares);
  sums.done = [&](Index task, const Rows& block, Index column, Index columns, const SumsOf<T>& of, Index stride) {
    const Buffer<T> memory(block.count() * stride);
    for (const Run& run : block.runs()) {
      const T* const z[] = {of(0) + run.first * stride, memory.data() + run.first * stride};
      second.subtract(block, run, column, columns, z[0], stride, memory.data() + run.first * stride);
      writer.write(run, column, columns, z, stride, lost.at(task, block, run));
    }
  };
  conv_sums(sums, call.threads);
  if (second.mostly_cancelled()) {
    count_run(ConvPath::kSubtractionCancelled);
    return false;
  }
  lost.add_to(call.job);
  return true;
}

}  // namespace

template <class T>
SharesPath<T> sum_by_subtraction() {
  return {ConvPath::kSumBySubtraction, may_run<T>, applies<T>, true, run<T>};
}

template SharesPath<float> sum_by_subtraction<float>();
template SharesPath<double> sum_by_subtraction<double>();

}  // namespace pylrp
