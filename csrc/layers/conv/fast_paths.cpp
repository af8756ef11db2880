#include "layers/conv/fast_paths.hpp"

#include <atomic>

#include "layers/conv/switches.hpp"

namespace pylrp {
namespace {

std::atomic<std::uint64_t> counts[kConvPaths];

}  // namespace

const char* name_of(ConvPath path) {
  switch (path) {
    case ConvPath::kForward:
      return "forward";
    case ConvPath::kProduct:
      return "product";
    case ConvPath::kShares:
      return "shares";
    case ConvPath::kBackward:
      return "backward";
    case ConvPath::kByContribution:
      return "by_contribution";
    case ConvPath::kPositionsInLanes:
      return "positions_in_lanes";
    case ConvPath::kFused1x1Forward:
      return "fused_1x1_forward";
    case ConvPath::kFused1x1:
      return "fused_1x1";
    case ConvPath::kSignsByMagnitude:
      return "signs_by_magnitude";
    case ConvPath::kDepthwise:
      return "depthwise";
    case ConvPath::kDepthwiseLinesForward:
      return "depthwise_lines_forward";
    case ConvPath::kDepthwiseLines:
      return "depthwise_lines";
    case ConvPath::kPackInTasks:
      return "pack_in_tasks";
    case ConvPath::kOutputAsSum:
      return "output_as_sum";
    case ConvPath::kOneOfFour:
      return "one_of_four";
    case ConvPath::kSumBySubtraction:
      return "sum_by_subtraction";
    case ConvPath::kTapsByMagnitude:
      return "taps_by_magnitude";
    case ConvPath::kFewInputChannels:
      return "few_input_channels";
    case ConvPath::kUniformWeights:
      return "uniform_weights";
    case ConvPath::kSignsCancelled:
      return "signs_by_magnitude_cancelled";
    case ConvPath::kSubtractionCancelled:
      return "sum_by_subtraction_cancelled";
    case ConvPath::kTapsCancelled:
      return "taps_by_magnitude_cancelled";
  }
  return "";
}

bool is_built(ConvPath path) {
  switch (path) {
    case ConvPath::kForward:
    case ConvPath::kProduct:
    case ConvPath::kShares:
    case ConvPath::kBackward:
      return true;
    case ConvPath::kByContribution:
      return PYLRP_CONV_BY_CONTRIBUTION;
    case ConvPath::kPositionsInLanes:
      return PYLRP_CONV_POSITIONS_IN_LANES;
    case ConvPath::kFused1x1Forward:
    case ConvPath::kFused1x1:
      return PYLRP_CONV_FUSED_1X1;
    case ConvPath::kSignsByMagnitude:
    case ConvPath::kSignsCancelled:
      return PYLRP_CONV_SIGNS_BY_MAGNITUDE;
    case ConvPath::kDepthwise:
      return PYLRP_CONV_DEPTHWISE;
    case ConvPath::kDepthwiseLinesForward:
    case ConvPath::kDepthwiseLines:
      return PYLRP_CONV_DEPTHWISE_LINES;
    case ConvPath::kPackInTasks:
      return PYLRP_CONV_PACK_IN_TASKS;
    case ConvPath::kOutputAsSum:
      return PYLRP_CONV_OUTPUT_AS_SUM;
    case ConvPath::kOneOfFour:
      return PYLRP_CONV_ONE_OF_FOUR;
    case ConvPath::kSumBySubtraction:
    case ConvPath::kSubtractionCancelled:
      return PYLRP_CONV_SUM_BY_SUBTRACTION;
    case ConvPath::kTapsByMagnitude:
    case ConvPath::kTapsCancelled:
      return PYLRP_CONV_TAPS_BY_MAGNITUDE;
    case ConvPath::kFewInputChannels:
      return PYLRP_CONV_FEW_INPUT_CHANNELS;
    case ConvPath::kUniformWeights:
      return PYLRP_CONV_UNIFORM_WEIGHTS;
  }
  return false;
}

void count_run(ConvPath path) { counts[static_cast<int>(path)].fetch_add(1, std::memory_order_relaxed); }

std::uint64_t runs_of(ConvPath path) { return counts[static_cast<int>(path)].load(std::memory_order_relaxed); }

}  // namespace pylrp
