// The backward pass of rules that read every weight as 1 (flat): each input of a position receives the same, whatever
// the weights, R_in = 1^T s. So the channels of s are added up first, and the product has a single channel.
#include <algorithm>

#include "kernels/dispatch.hpp"
#include "layers/conv/plan.hpp"

namespace pylrp {
namespace {

template <class T>
bool may_run(const ConvWeights<T>& w, const LoweredRule& rule) {
  std::array<double, kParts> only{};
  only[static_cast<std::size_t>(Part::kOne)] = 1;
  return rule.back.size() == 1 && rule.back[0].map.kind == MapKind::kOne && rule.back[0].factor == only &&
         !w.transposed && !w.depthwise() && w.shape.groups == 1 && w.target_channels() > 1;
}

template <class T>
void run(const ConvCall<T>& call, const BatchSlice& slice, const T* shares) {
  constexpr Index kPositions = 512;  // a task
  const ConvWeights<T>& w = call.weights;
  const Index channels = w.target_channels(), positions = slice.rows() * count(w.target());
  const Buffer<T> totals(positions);
  parallel_for((positions + kPositions - 1) / kPositions, call.threads, [&](Index task) {
    for (Index i = task * kPositions; i < std::min(positions, (task + 1) * kPositions); ++i) {
      totals.data()[i] = static_cast<T>(kernels::table<T>().sum(channels, shares + i * channels));
    }
  });
  ConvWeights<T> one_channel = w;
  one_channel.shape.out_channels = 1;
  backward_general<T>(one_channel, call, slice, totals.data());
}

}  // namespace

template <class T>
BackwardPath<T> uniform_weights() {
  return {ConvPath::kUniformWeights, may_run<T>, run<T>};
}

template BackwardPath<float> uniform_weights<float>();
template BackwardPath<double> uniform_weights<double>();

}  // namespace pylrp
