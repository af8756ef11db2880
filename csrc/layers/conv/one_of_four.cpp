// Below a pool of 2 x 2 one of four neighbouring positions has relevance, another one in each channel: only its sums
// are computed, its share written, and zeros to the others. Whether it is so is looked up in the relevance.
#include <algorithm>
#include <atomic>
#include <type_traits>

#include "kernels/dispatch.hpp"
#include "layers/conv/one_sum.hpp"
#include "layers/conv/plan.hpp"
#include "products/lists.hpp"
#include "products/rounded_images.hpp"
#include "products/tap_quads.hpp"

namespace pylrp {
namespace {

constexpr Index kMinChannels = 8;  // with fewer, making lists takes what they save. Not measured alone.

template <class T>
bool may_run(const ConvWeights<T>& w, const LoweredRule& rule) {
  if (!std::is_same_v<T, float> || kernels::quads() == nullptr) {
    return false;
  }
  const bool reads_samples = std::all_of(rule.sums.begin(), rule.sums.end(), [](const Sum& sum) {
    return std::all_of(sum.begin(), sum.end(), [](const ProductTerm& tap) {
      return tap.part == Part::kInput || tap.part == Part::kPositive || tap.part == Part::kNegative;
    });
  });
  return reads_samples && !rule.sums.empty() && !rule.back.empty() && !w.transposed && !w.bias_by_position &&
         w.shape.groups == 1 && w.shape.stride == Axes{1, 1, 1} && w.source_channels() >= kMinChannels &&
         2 * w.target_channels() >= kernels::table<T>().tile_cols && w.target()[1] > 1 && w.target()[2] > 1;
}

// The four rows of a window in an image of `channels`, from a column on; null where it is cut off.
template <class T>
struct FourRows {
  T* at[4] = {};
  FourRows(const QuadWindows& windows, Index window, T* image, Index channels, Index column) {
    windows.each(window, [&](Index q, Index position) { at[q] = image + position * channels + column; });
  }
};

bool applies_to(const ConvCall<float>& call) {
  const RelevanceJob<float>& job = call.job;
  if (job.targets() != 1 || forced_left_path() != LeftPath::kCounted) {
    return false;
  }
  constexpr Index kTogether = 128;  // windows of a task
  const QuadWindows windows(call.weights.target());
  const Index channels = call.weights.target_channels(), parts = (windows.count() + kTogether - 1) / kTogether;
  const Index width = kernels::table<float>().tile_cols, stride = (channels + width - 1) / width * width;
  std::atomic<bool> one{true};
  parallel_for(job.batch * parts, call.threads, [&](Index task) {
    const Buffer<std::int32_t> choice(stride);
    const Buffer<float> sum(stride);
    const Index first = windows.count() * (task % parts) / parts, end = windows.count() * (task % parts + 1) / parts;
    for (Index i = first; i < end && one.load(std::memory_order_relaxed); ++i) {
      const FourRows<const float> r(windows, i, job.relevance.row(task / parts), channels, 0);
      if (!kernels::quads()->choose(channels, r.at, choice.data(), sum.data())) {
        one.store(false, std::memory_order_relaxed);
      }
    }
  });
  return one.load();
}

// What the tasks share: their relevance, the shares of theirs, and where these go.
class Windows {
 public:
  Windows(const ConvCall<float>& call, const BatchSlice& slice, const QuadWork& work, float* shares)
      : call_(call),
        slice_(slice),
        constants_(call.weights, call.rule, false),
        windows_(call.weights.target()),
        channels_(call.weights.target_channels()),
        splits_(work.splits()),
        shares_(shares),
        relevance_(static_cast<std::size_t>(work.tasks())),
        ends_(static_cast<std::size_t>(work.tasks())),
        lost_(static_cast<std::size_t>(work.tasks())) {}

  void choose(const QuadBlock& block, std::int32_t* choice) {
    Buffer<float>& relevance = relevance_[static_cast<std::size_t>(block.task)];
    relevance.reset(block.windows * block.stride);
    ends_[static_cast<std::size_t>(block.task)] = block.column + block.columns;
    const float* const from = call_.job.relevance.row(slice_.row(call_.job, 0, block.sample));
    for (Index i = 0; i < block.windows; ++i) {
      const FourRows<const float> r(windows_, block.first + i, from, channels_, block.column);
      kernels::quads()->choose(block.columns, r.at, choice + i * block.stride, relevance.data() + i * block.stride);
    }
  }

  // Where a ReLU keeps the output, which the two sums make: second = output - bias - first, as sum_by_subtraction.cpp
  // does it. False: too much cancels.
  bool subtract(const QuadBlock& block, const Walk& walk, const InputPartImages<float>& images, const float* first,
                const std::int32_t* choice, Index choice_stride, float* second) const;

  void write(const QuadBlock& block, const float* const* sums, const std::int32_t* choice, Index choice_stride) {
    const std::size_t task = static_cast<std::size_t>(block.task);
    const Index groups = static_cast<Index>(call_.rule.groups.size()), size = block.windows * block.stride;
    const Buffer<float> memory(groups * size);
    float* s[kernels::kMaxGroups] = {};
    for (Index g = 0; g < groups; ++g) {
      s[g] = memory.data() + g * size;
    }
    kernels::table<float>().shares({.rows = block.windows,
                                    .cols = block.columns,
                                    .rule = shares_at_column(constants_.args, block.column),
                                    .z = sums,
                                    .z_stride = block.stride,
                                    .r = relevance_[task].data() + column_in_task(block),
                                    .r_stride = choice_stride,
                                    .s = s,
                                    .s_stride = block.stride,
                                    .ledger = &lost_[task],
                                    .ledger_step = 0});
    for (Index g = 0; g < groups; ++g) {
      float* const to = shares_ + (g * slice_.rows() + block.sample) * call_.weights.target_size();
      for (Index i = 0; i < block.windows; ++i) {
        const FourRows<float> rows(windows_, block.first + i, to, channels_, block.column);
        kernels::quads()->place(block.columns, choice + i * choice_stride, s[g] + i * block.stride, rows.at);
      }
    }
    if (block.column + block.columns == ends_[task]) {  // the task's last
      relevance_[task] = {};
    }
  }

  void add_losses() const {
    const Index tasks_a_sample = static_cast<Index>(lost_.size()) / std::max<Index>(1, slice_.samples);
    for (std::size_t task = 0; task < lost_.size(); ++task) {
      add_lost(call_.job, slice_, static_cast<Index>(task) / tasks_a_sample, &lost_[task]);
    }
  }

 private:
  // Panels go to tasks as in QuadLoops::run_task.
  Index column_in_task(const QuadBlock& block) const {
    const Index width = kernels::table<float>().tile_cols, panels = (channels_ + width - 1) / width;
    return block.column - panels * (block.task % splits_) / splits_ * width;
  }

  const ConvCall<float>& call_;
  const BatchSlice& slice_;
  ShareConstants<float> constants_;
  QuadWindows windows_;
  Index channels_, splits_;
  float* shares_;
  std::vector<Buffer<float>> relevance_;  // of each task's windows, while it runs
  std::vector<Index> ends_;               // of each task's columns
  std::vector<kernels::Absorbed> lost_;
};

bool Windows::subtract(const QuadBlock& block, const Walk& walk, const InputPartImages<float>& images,
                       const float* first, const std::int32_t* choice, Index choice_stride, float* second) const {
  const ConvWeights<float>& w = call_.weights;
  const Index sample = slice_.begin + block.sample, size = block.windows * block.columns;
  const float* const relevance = relevance_[static_cast<std::size_t>(block.task)].data() + column_in_task(block);
  const Buffer<float> outputs(size);  // of the chosen; 0 where there is no relevance: nothing is asked there
  for (Index i = 0; i < block.windows; ++i) {
    const FourRows<const float> rows(windows_, block.first + i, call_.job.output.row(sample), channels_, block.column);
    for (Index j = 0; j < block.columns; ++j) {
      const Index at = i * choice_stride + j;
      outputs.data()[i * block.columns + j] = relevance[at] == 0 ? 0 : rows.at[choice[at]][j];
    }
  }
  std::vector<Index> cancelled(static_cast<std::size_t>(size));
  const Index count = kernels::table<float>().left_over({.rows = block.windows,
                                                         .cols = block.columns,
                                                         .z = outputs.data(),
                                                         .z_stride = block.columns,
                                                         .bias = w.bias ? w.bias + block.column : nullptr,
                                                         .first = first,
                                                         .first_stride = block.stride,
                                                         .out = second,
                                                         .out_stride = block.stride,
                                                         .cancelled_at = cancelled.data()});
  if (count > size / 64 + 16) {
    return false;
  }
  for (Index c = 0; c < count; ++c) {
    const Index i = cancelled[static_cast<std::size_t>(c)] / block.columns;
    const Index j = cancelled[static_cast<std::size_t>(c)] % block.columns;
    windows_.each(block.first + i, [&](Index q, Index position) {
      if (q == choice[i * choice_stride + j]) {
        second[i * block.stride + j] =
            one_sum(call_.rule.sums[1], w, images, walk, block.sample * walk.count() + position, block.column + j);
      }
    });
  }
  return true;
}

void run_float(const ConvCall<float>& call, const BatchSlice& slice, float* shares) {
  const ConvWeights<float>& w = call.weights;
  const InputPartImages<float> images(call, slice);
  const ConvSums<float> sums = sums_of_rule(call, slice, images, call.rule.sums.size());
  const std::vector<Walk> walks = sums.walks();
  const Operands<float> operands(call.threads.bfloat16);
  const Index steps = w.source_channels(), channels = operands.places(steps);
  const RoundedImages<float> rounded(
      operands, sums.products, {slice.samples, count(walks.front().source), 1, channels, steps}, true, call.threads);
  QuadWork work{&walks.front(),
                slice.samples,
                channels,
                w.target_channels(),
                rounded.products(),
                sums.outputs,
                [&w](const Cut& cut, kernels::Weights<float> map, float* to) {
                  return kernels::table<float>().pack_forward(static_cast<int>(cut.columns), cut.channels,
                                                              w.at(cut.column, cut.tap, cut.channel), w.row_size(), map,
                                                              to, kernels::table<float>().tile_cols);
                },
                operands,
                steps,
                {},
                {}};
  Windows windows(call, slice, work, shares);
  work.choose = [&](const QuadBlock& block, std::int32_t* choice) { windows.choose(block, choice); };
  work.done = [&](const QuadBlock& block, const float* const* z, const std::int32_t* choice, Index stride) {
    windows.write(block, z, choice, stride);
  };
  if (call.job.output && call.job.output_positive && call.rule.two_sums_make_plain_output()) {
    work.second = [&](const QuadBlock& block, const float* first, const std::int32_t* choice, Index stride,
                      float* second) {
      return windows.subtract(block, walks.front(), images, first, choice, stride, second);
    };
  }
  multiply_quads(work, call.threads);
  windows.add_losses();
}

template <class T>
bool applies(const ConvCall<T>& call) {
  if constexpr (std::is_same_v<T, float>) {
    return applies_to(call);
  }
  return false;
}

template <class T>
bool run(const ConvCall<T>& call, const BatchSlice& slice, T* shares) {
  if constexpr (std::is_same_v<T, float>) {
    run_float(call, slice, shares);
  }
  return true;
}

}  // namespace

template <class T>
SharesPath<T> one_of_four() {
  return {ConvPath::kOneOfFour, may_run<T>, applies<T>, false, run<T>};
}

template SharesPath<float> one_of_four<float>();
template SharesPath<double> one_of_four<double>();

}  // namespace pylrp
