// A kernel of one with inputs of both signs, where many outputs have no relevance (behind a ReLU): the contributions
// w a of the others one by one, each multiplied once for its sum and once for its share. That is 3 steps an entry where
// products with W+ and W- take 4, entries without relevance cost nothing, nothing cancels and no weights are mapped.
// Over an image of few channels (RGB) any kernel goes this way, by patches of the image: products would read its few
// channels tap by tap.
#include <algorithm>
#include <type_traits>

#include "kernels/dispatch.hpp"
#include "layers/conv/contributing.hpp"
#include "layers/conv/patches.hpp"
#include "layers/conv/positions.hpp"
#include "products/lists.hpp"
#include "rules/contributions.hpp"

namespace pylrp {
namespace {

constexpr Index kSentBytes = Index{16} << 20;  // of patches that are sent, at a time
constexpr Index kMostInputs = 512;             // more: not measured
constexpr Index kMostOfPixel = 4;              // channels, by patch
constexpr std::size_t kMostGroups = 2;
constexpr Index kMostTargets = 16;   // that share a list
constexpr double kMostAlone = 1.25;  // entries of it, as a multiple of those that a target has

Index lanes() { return kernels::table<float>().tile_cols / 2; }

// The usual products are four at least: else there is nothing to win.
bool has_four_products(const LoweredRule& rule) {
  std::size_t products = rule.back.size();
  for (const Sum& sum : rule.sums) {
    products += sum.size();
  }
  return products >= 4;
}

// A patch has few entries of a pixel, so that lanes of products would be idle.
template <class T>
bool is_by_patch(const ConvWeights<T>& w) {
  return !w.transposed && !w.bias_by_position && !w.depthwise() && w.shape.groups == 1 && w.shape.taps() > 1 &&
         w.source_channels() <= kMostOfPixel;
}

template <class T>
bool may_run(const ConvWeights<T>& w, const LoweredRule& rule) {
  ByContribution made;
  return std::is_same_v<T, float> && kernels::contributions() != nullptr && (w.is_1x1() || is_by_patch(w)) &&
         w.row_size() <= kMostInputs && !rule.groups.empty() && rule.groups.size() <= kMostGroups &&
         !rule.sums.empty() && has_four_products(rule) && by_contribution(rule, &made) &&
         (kernels::contributions()->apart || !is_apart(made, rule));
}

// Outputs with relevance, as a share: of each target, and of one of those that would go together.
struct Kept {
  double each, any;
};
// Of some of its positions.
Kept shares_with_relevance(const RelevanceJob<float>& job, Index channels) {
  const Index positions = job.relevance.cols / channels, apart = std::clamp<Index>(positions / 16, 1, 32);
  const Index targets = std::min(job.targets(), kMostTargets);
  const Buffer<float> values(targets * (channels + kernels::kSpare));
  const Buffer<std::uint16_t> steps(channels + kernels::kSpare);
  Index each = 0, any = 0, counted = 0;
  for (Index i = 0; i < job.batch; ++i) {
    for (Index p = apart / 2; p < positions; p += apart) {
      const TargetRows rows = rows_of(job, 0, targets, i, p * channels);
      for (Index t = 0; t < targets; ++t) {
        each += kernels::table<float>().nonzeros(channels, rows.first + t * rows.step, 0);
      }
      any += targets == 1 ? 0
                          : kernels::contributions()->compress_targets(channels, static_cast<int>(targets), rows.first,
                                                                       rows.step, values.data(),
                                                                       channels + kernels::kSpare, steps.data());
      counted += channels;
    }
  }
  const double all = static_cast<double>(std::max<Index>(counted, 1));
  return {static_cast<double>(each) / all / static_cast<double>(targets), static_cast<double>(any) / all};
}
// How many targets go together: where most have relevance at the same outputs, behind a ReLU, they have one list.
Index targets_together(const RelevanceJob<float>& job, const Kept& kept) {
  return kept.any > kMostAlone * kept.each ? 1 : std::min(job.targets(), kMostTargets);
}

// Contributions take the time of products where so many outputs have relevance: measured with 16 to 512 inputs. The sum
// across lanes that each output ends with weighs more where inputs are few.
double most_with_relevance(const ConvCall<float>& call) {
  if (is_apart(call.form.contributions->rule, call.rule)) {
    return 0.5;
  }
  return lanes() < 16 || call.weights.source_channels() <= 32 ? 0.6 : 0.8;
}

bool wins(const ConvCall<float>& call) {
  const RelevanceJob<float>& job = call.job;
  if (call.threads.bfloat16 || forced_left_path() == LeftPath::kTiles) {
    return false;
  }
  if (is_by_patch(call.weights)) {
    return true;
  }
  const Kept kept = shares_with_relevance(job, call.weights.target_channels());
  if (targets_together(job, kept) > 1) {  // sums are made once for many of them, as products do
    return kept.any < most_with_relevance(call);
  }
  const double targets = static_cast<double>(job.targets());
  return kept.each < most_with_relevance(call) * (1 + targets) / (2 * targets);
}

template <class T>
bool applies(const ConvCall<T>& call) {
  if constexpr (std::is_same_v<T, float>) {
    // An entry without relevance reads no weights, which are to show up all the same if they are not finite.
    return call.form.contributions->finite && wins(call);
  }
  return false;
}

void add_lost_of(const RelevanceJob<float>& job, const BatchSlice& slice, const PositionTasks& tasks,
                 const std::vector<kernels::Absorbed>& lost) {
  for (Index task = 0; task < tasks.count(); ++task) {
    add_lost(job, slice, task / tasks.parts, &lost[static_cast<std::size_t>(task * slice.targets)]);
  }
}

Index most_together(const ConvCall<float>& call) {
  const RelevanceJob<float>& job = call.job;
  return job.targets() == 1 ? 1 : targets_together(job, shares_with_relevance(job, call.weights.target_channels()));
}

void run_1x1(const ConvCall<float>& call) {
  const RelevanceJob<float>& job = call.job;
  const Contributing shared(call, false);
  const Index targets = job.targets(), in = shared.in, most = most_together(call);
  const Index groups = (targets + most - 1) / most, together = (targets + groups - 1) / groups;
  const PositionTasks tasks(job.batch, count(call.weights.target()), shared.row_bytes(together), 1);
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(tasks.count() * targets));
  tasks.each(call.threads, [&](Index task, Index sample, Index first, Index rows) {
    for (Index g = 0; g < groups; ++g) {
      const Index t = targets * g / groups, count = targets * (g + 1) / groups - t;
      ContributingBlock block(shared, rows, count);
      block.read(job.inputs[0].row(sample) + first * in);
      block.run(rows_of(job, t, count, sample, first * shared.out),
                job.results[0].row(t * job.batch + sample) + first * in, job.batch * job.results[0].stride,
                &lost[static_cast<std::size_t>(task * targets + t)]);
    }
  });
  add_lost_of(job, {0, job.batch, 0, targets}, tasks, lost);
}

// Patches send first; then lines of the input, whose place the result may take, gather.
void run_by_patch(const ConvCall<float>& call) {
  const RelevanceJob<float>& job = call.job;
  const ConvShape& shape = call.weights.shape;
  const Contributing shared(call, true);
  const Patches<float> patches(shape);
  const Index positions = count(shape.out), size = positions * shared.stride, lines = patches.lines();
  const Index fitting = std::max<Index>(1, kSentBytes / (size * Index{sizeof(float)}));
  const Index together = std::min(fitting, most_together(call)), samples = std::min(job.batch, fitting / together);
  const Buffer<float> sent(samples * together * size, call.threads.workspace);
  for (Index begin = 0; begin < job.batch; begin += samples) {
    for (Index t = 0; t < job.targets(); t += together) {
      const BatchSlice slice{begin, std::min(samples, job.batch - begin), t, std::min(together, job.targets() - t)};
      const PositionTasks tasks(slice.samples, positions, shared.row_bytes(slice.targets), 1);
      std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(tasks.count() * slice.targets));
      tasks.each(call.threads, [&](Index task, Index sample, Index first, Index rows) {
        const Buffer<float> read(rows * shared.stride);
        patches.read(job.inputs[0].row(begin + sample), first, rows, shared.stride, read.data());
        ContributingBlock block(shared, rows, slice.targets);
        block.read(read.data());
        block.run(rows_of(job, t, slice.targets, begin + sample, first * shared.out),
                  sent.data() + sample * size + first * shared.stride, slice.samples * size,
                  &lost[static_cast<std::size_t>(task * slice.targets)]);
      });
      parallel_for(slice.rows() * lines, call.threads, [&](Index task) {
        const Index row = task / lines, line = task % lines;
        patches.gather(sent.data() + row * size, shared.stride, line,
                       job.results[0].row(slice.row(job, row / slice.samples, row % slice.samples)) +
                           line * shape.in[2] * shape.in_channels);
      });
      add_lost_of(job, slice, tasks, lost);
    }
  }
}

template <class T>
void run(const ConvCall<T>& call) {
  if constexpr (std::is_same_v<T, float>) {
    call.weights.is_1x1() ? run_1x1(call) : run_by_patch(call);
  }
}

}  // namespace

ContributionForm contributions_of(const ConvWeights<float>& w, const LoweredRule& rule) {
  ContributionForm made;
  by_contribution(rule, &made.rule);
  const Matrix<const float> weights = w.matrix();
  made.finite = (kernels::table<float>().scan(weights.rows * weights.cols, weights.data) & kernels::kNotFinite) == 0;
  return made;
}

template <class T>
RelevancePath<T> by_contribution_path() {
  return {ConvPath::kByContribution, may_run<T>, applies<T>, run<T>};
}

template RelevancePath<float> by_contribution_path<float>();
template RelevancePath<double> by_contribution_path<double>();

}  // namespace pylrp
