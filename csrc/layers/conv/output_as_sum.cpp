// The rule's one sum is the layer's output, bias and all (epsilon): where the output was kept, no product is needed.
#include <algorithm>

#include "layers/conv/plan.hpp"

namespace pylrp {
namespace {

template <class T>
bool may_run(const ConvWeights<T>& w, const LoweredRule& rule) {
  return rule.sum_is_plain_output() && sum_takes_whole_bias(rule, w.bias != nullptr);
}

template <class T>
bool applies(const ConvCall<T>& call) {
  return static_cast<bool>(call.job.output);
}

template <class T>
bool run(const ConvCall<T>& call, const BatchSlice& slice, T* shares) {
  constexpr Index kPositions = 1024;  // a task
  const ConvWeights<T>& w = call.weights;
  const Index channels = w.target_channels(), positions = count(w.target());
  const Index parts = (positions + kPositions - 1) / kPositions, tasks = slice.samples * parts;
  const ShareWriter<T> writer(call, slice, true, shares);
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(tasks * slice.targets));
  const auto lost_by = [&](Index task) { return &lost[static_cast<std::size_t>(task * slice.targets)]; };
  parallel_for(tasks, call.threads, [&](Index task) {
    const Index sample = task / parts, first = task % parts * kPositions;
    const Run run{0, std::min(kPositions, positions - first), sample, first, 1};
    const T* const z[] = {call.job.output.row(slice.begin + sample) + first * channels};
    writer.write(run, 0, channels, z, channels, lost_by(task));
  });
  for (Index task = 0; task < tasks; ++task) {
    add_lost(call.job, slice, task / parts, lost_by(task));
  }
  return true;
}

}  // namespace

template <class T>
SharesPath<T> output_as_sum() {
  return {ConvPath::kOutputAsSum, may_run<T>, applies<T>, false, run<T>};
}

template SharesPath<float> output_as_sum<float>();
template SharesPath<double> output_as_sum<double>();

}  // namespace pylrp
