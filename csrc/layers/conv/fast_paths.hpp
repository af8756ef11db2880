// The fast paths of the convolution by name: which are built, and how often each ran in this process. For tests and
// diagnosis; nothing is decided by these counts.
#pragma once

#include <cstdint>

namespace pylrp {

enum class ConvPath : int {
  // The general case of each step.
  kForward,
  kProduct,
  kShares,
  kBackward,
  // Fast paths.
  kByContribution,
  kPositionsInLanes,
  kFused1x1Forward,
  kFused1x1,
  kSignsByMagnitude,
  kDepthwise,
  kDepthwiseLinesForward,
  kDepthwiseLines,
  kPackInTasks,
  kOutputAsSum,
  kOneOfFour,
  kSumBySubtraction,
  kTapsByMagnitude,
  kFewInputChannels,
  kUniformWeights,
  // Runs of a fast path that met too much cancellation and left the work, or some blocks of it, to the general sums.
  kSignsCancelled,
  kSubtractionCancelled,
  kTapsCancelled,
};
inline constexpr int kConvPaths = 22;

const char* name_of(ConvPath path);
bool is_built(ConvPath path);
// Once for each call of a layer, or for each slice of it where memory bounds the work; from any thread.
void count_run(ConvPath path);
std::uint64_t runs_of(ConvPath path);

}  // namespace pylrp
