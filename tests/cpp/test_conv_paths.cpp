// The fast paths of a convolution: for each a layer that takes it, as the counts say, with and without a prepared plan;
// a path that is not built never runs. check_conv() compares every result with the reference, whichever path made it.
#include <functional>
#include <map>

#include "conv_run.hpp"

namespace pylrp {
namespace {

std::vector<std::uint64_t> runs() {
  std::vector<std::uint64_t> all;
  for (int p = 0; p < kConvPaths; ++p) {
    all.push_back(runs_of(static_cast<ConvPath>(p)));
  }
  return all;
}
// Whether a path ran while body() did.
bool ran(ConvPath path, const std::function<void()>& body) {
  const std::uint64_t before = runs_of(path);
  body();
  return runs_of(path) > before;
}

struct PathCase {
  ConvPath path;   // that runs if it is built,
  ConvPath other;  // and the one that does its work if it is not
  ConvCase conv;
  const char* rule;
  bool nonnegative, kept, positive;
};
const Geometry kPadded{{1, 9, 10}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
const Geometry kFive{{1, 9, 10}, {1, 3, 5}, {1, 2, 2}, {1, 1, 1}, {0, 1, 2}, {0, 1, 2}};
const Geometry kPoints{{1, 21, 22}, {1, 1, 1}}, kFewPoints{{1, 5, 7}, {1, 1, 1}};

const std::vector<PathCase>& cases() {
  static const std::vector<PathCase> all{
      {ConvPath::kFused1x1Forward, ConvPath::kForward, {"1x1", kPoints, 5, 9, 1, false}, "z+", false, false, false},
      {ConvPath::kFused1x1, ConvPath::kBackward, {"1x1", kPoints, 5, 9, 1, false}, "gamma", false, false, false},
      {ConvPath::kSignsByMagnitude,
       ConvPath::kBackward,
       {"1x1, few positions", kFewPoints, 17, 19, 1, false},
       "alpha-beta",
       false,
       false,
       false},
      {ConvPath::kDepthwise, ConvPath::kProduct, {"depthwise", kPadded, 17, 17, 17, false}, "z+", false, false, false},
      {ConvPath::kDepthwiseLinesForward,
       ConvPath::kForward,
       {"depthwise", kPadded, 17, 17, 17, false},
       "z+",
       false,
       false,
       false},
      {ConvPath::kDepthwiseLines,
       ConvPath::kBackward,
       {"depthwise", kFive, 17, 17, 17, false},
       "z+",
       true,
       false,
       false},
      {ConvPath::kDepthwise, ConvPath::kProduct, {"depthwise", kPadded, 7, 7, 7, true}, "z-box", false, false, false},
      {ConvPath::kPackInTasks, ConvPath::kProduct, {"wide", kPadded, 3, 65, 1, false}, "z+", false, false, false},
      {ConvPath::kOutputAsSum, ConvPath::kShares, {"plain", kPadded, 3, 5, 1, false}, "epsilon", false, true, false},
      {ConvPath::kOutputAsSum, ConvPath::kShares, {"1x1", kPoints, 5, 9, 1, false}, "epsilon", true, true, true},
      {ConvPath::kSumBySubtraction,
       ConvPath::kShares,
       {"plain", kPadded, 3, 8, 1, false},
       "alpha-beta",
       true,
       true,
       true},
      {ConvPath::kTapsByMagnitude,
       ConvPath::kBackward,
       {"groups", kPadded, 6, 8, 2, false},
       "alpha-beta",
       false,
       false,
       false},
      {ConvPath::kTapsByMagnitude, ConvPath::kShares, {"plain", kPadded, 6, 8, 2, true}, "z+", false, true, false},
      {ConvPath::kFewInputChannels, ConvPath::kBackward, {"RGB", kPadded, 1, 16, 1, false}, "z+", true, false, false},
      {ConvPath::kUniformWeights, ConvPath::kBackward, {"plain", kPadded, 3, 5, 1, false}, "flat", false, false, false},
  };
  return all;
}

template <class T>
void check_path(const PathCase& c, unsigned n) {
  const NamedRule rule{c.rule, rule_named(c.rule)};
  Options options(n);
  options.batch = 2;
  options.targets = 1 + static_cast<Index>(n % 2);
  options.nonnegative = c.nonnegative;
  options.kept = c.kept;
  options.positive = c.positive;
  for (const bool prepared : {false, true}) {
    options.prepared = prepared;
    const std::vector<std::uint64_t> before = runs();
    CHECK(ran(c.path, [&] { check_conv<T>(c.conv, rule, options, n); }) == is_built(c.path));
    CHECK(is_built(c.path) || runs_of(c.other) > before[static_cast<std::size_t>(c.other)]);
  }
}
TEST(conv_paths_each_runs) {
  unsigned n = 0;
  for (const PathCase& c : cases()) {
    check_path<float>(c, ++n);
    check_path<double>(c, ++n);
  }
}

TEST(conv_paths_every_path_has_a_case) {
  std::map<ConvPath, int> met{{ConvPath::kForward, 1},          {ConvPath::kProduct, 1},
                              {ConvPath::kShares, 1},           {ConvPath::kBackward, 1},
                              {ConvPath::kSignsCancelled, 1},   {ConvPath::kSubtractionCancelled, 1},
                              {ConvPath::kTapsCancelled, 1},     // see below
                              {ConvPath::kOneOfFour, 1},         // test_conv_one_of_four.cpp
                              {ConvPath::kPositionsInLanes, 1},  // test_conv_positions_in_lanes.cpp
                              {ConvPath::kByContribution, 1}};   // test_conv_by_contribution.cpp
  for (const PathCase& c : cases()) {
    ++met[c.path];
  }
  CHECK(static_cast<int>(met.size()) == kConvPaths);
}

// The conditions that only the call knows: few positions, no output at hand, signs.
TEST(conv_paths_leave_the_rest_to_the_general_case) {
  struct Case {
    ConvPath path;
    ConvCase conv;
    const char* rule;
    bool nonnegative, kept, positive;
  };
  const std::vector<Case> all{
      {ConvPath::kFused1x1, {"few positions", kFewPoints, 17, 19, 1, false}, "z+", false, false, false},
      {ConvPath::kSignsByMagnitude, {"one sign", kPoints, 17, 19, 1, false}, "alpha-beta", true, false, false},
      {ConvPath::kSignsByMagnitude, {"few channels", kPoints, 15, 19, 1, false}, "alpha-beta", false, false, false},
      {ConvPath::kTapsByMagnitude, {"few terms", kPadded, 1, 5, 1, false}, "alpha-beta", false, false, false},
      {ConvPath::kTapsByMagnitude, {"one sign", kPadded, 3, 5, 1, false}, "gamma", true, false, false},
      {ConvPath::kTapsByMagnitude, {"no output", kPadded, 3, 5, 1, false}, "z+", false, false, false},
      {ConvPath::kTapsByMagnitude, {"1x1", kPoints, 17, 5, 1, false}, "gamma", false, false, false},
      {ConvPath::kOutputAsSum, {"no output", kPadded, 3, 5, 1, false}, "epsilon", false, false, false},
      {ConvPath::kOutputAsSum, {"no bias", kPadded, 3, 5, 1, false}, "no bias", false, true, false},
      {ConvPath::kSumBySubtraction, {"any sign", kPadded, 3, 8, 1, false}, "alpha-beta", true, true, false},
      {ConvPath::kUniformWeights, {"groups", kPadded, 4, 6, 2, false}, "flat", false, false, false},
  };
  unsigned n = 0;
  for (const Case& c : all) {
    Options options(++n);
    options.batch = 1;
    options.targets = 1;
    options.with_bias = true;
    options.nonnegative = c.nonnegative;
    options.kept = c.kept;
    options.positive = c.positive;
    CHECK(!ran(c.path, [&] { check_conv<double>(c.conv, {c.rule, rule_named(c.rule)}, options, n); }));
  }
}

// Weights and inputs of one sign: the second sum is nothing but rounding, and what was derived is computed anew.
TEST(conv_paths_that_cancel) {
  const CompiledRule rule(rule_named("alpha-beta"));
  for (const auto& [path, geometry] : {std::pair{ConvPath::kSignsCancelled, kFewPoints},
                                       {ConvPath::kSubtractionCancelled, kPadded},
                                       {ConvPath::kTapsCancelled, kPadded}}) {
    const bool behind_relu = path == ConvPath::kSubtractionCancelled;
    ConvData<float> data(geometry.shape(18, 9, 1), false, 1, 1, 1, true);
    for (Index o = 0; o < data.weight.rows(); ++o) {
      std::for_each(data.weight.row(o), data.weight.row(o) + data.weight.cols(), [](float& w) { w = std::abs(w); });
    }
    Options options(1);
    options.nonnegative = behind_relu;  // else nobody said so
    options.positive = behind_relu;
    options.threads = 2;
    Fenced<float> output(1, data.relevance.cols());
    const ConvLayer<float> layer = data.layer(true);
    layer.forward({data.input.read()}, output.view(), {}, {1});
    const std::uint64_t before = runs_of(path);
    Relevance<float> found(layer, data, rule, behind_relu ? output.read() : Matrix<const float>{}, options);
    CHECK(runs_of(path) - before == (is_built(path) ? 1u : 0u));
    CHECK(found.result.intact());
  }
}

#ifdef PYLRP_CONV_GENERAL_ONLY
TEST(conv_paths_are_all_switched_off) {
  for (int p = static_cast<int>(ConvPath::kByContribution); p < kConvPaths; ++p) {
    check::context = name_of(static_cast<ConvPath>(p));
    CHECK(!is_built(static_cast<ConvPath>(p)));
  }
}
#endif

TEST(conv_paths_have_names) {
  std::map<std::string, int> names;
  for (int p = 0; p < kConvPaths; ++p) {
    ++names[name_of(static_cast<ConvPath>(p))];
  }
  CHECK(static_cast<int>(names.size()) == kConvPaths && names.count("") == 0);
}

// Forms of a rule that is too wide for the kernels with its constant terms: refused where it is used, not in prepare().
TEST(conv_plan_of_a_wide_rule) {
  ConvData<float> data(kPadded.shape(2, 2), false, 1, 1, 1, false);
  const CompiledRule rule(rule_named("odd"));
  const auto plan = data.layer(true).prepare(rule, {}, {1});
  CHECK(static_cast<const ConvPlan<float>&>(*plan).form(false, false) == nullptr);
}

}  // namespace
}  // namespace pylrp
