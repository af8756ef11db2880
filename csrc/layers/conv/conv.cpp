#include "layers/conv/conv.hpp"

#include <algorithm>

#include "kernels/dispatch.hpp"
#include "layers/conv/sum_by_subtraction.hpp"
#include "rules/kernel_args.hpp"

namespace pylrp {
namespace {

constexpr Index kShareBytes = Index{32} << 20;  // for s, where a batch or several targets need more they go in parts

template <class T>
PackTap<T> packer(const ConvWeights<T>& w, bool to_out) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index row = w.shape.taps() * w.shape.group_in(), in = w.shape.group_in(), out = w.shape.group_out();
  if (to_out) {  // columns are rows of the weights
    return [=, &kernel, weight = w.weight](const Cut& cut, kernels::Weights<T> map, T* to) {
      kernel.pack_forward(static_cast<int>(cut.columns), cut.channels,
                          weight + (cut.group * out + cut.column) * row + cut.tap * in + cut.channel, row, map, to);
    };
  }
  return [=, &kernel, weight = w.weight](const Cut& cut, kernels::Weights<T> map, T* to) {
    kernel.pack_backward(static_cast<int>(cut.columns), cut.channels,
                         weight + (cut.group * out + cut.channel) * row + cut.tap * in + cut.column, row, map, to);
  };
}

template <class T>
TapWork<T> work_of(const ConvSums<T>& sums, const Walk* walk) {
  const ConvShape& shape = sums.weights->shape;
  const bool to_out = sums.up != sums.weights->transposed;
  return {walk,
          sums.samples,
          shape.groups,
          to_out ? shape.group_in() : shape.group_out(),
          to_out ? shape.group_out() : shape.group_in(),
          sums.products,
          sums.outputs,
          packer(*sums.weights, to_out),
          {}};
}

Threads worth(Index products, const Threads& threads) {
  return threads.alone_if(products < kMinProductsForThreadsConv);
}

// The plain output is there, and what follows from it:
enum class Known {
  kNothing,
  kSum,   // it is the rule's only sum
  kRest,  // it is the sum of the rule's two sums: the second need not be computed
};

template <class T>
bool is_plain_output(const ConvWeights<T>& w, const LoweredRule& rule) {
  return rule.sum_is_plain_output() && sum_takes_whole_bias(rule, w.bias != nullptr);
}
template <class T>
bool can_subtract(const ConvWeights<T>& w, const LoweredRule& rule) {
  return rule.two_sums_make_plain_output() && !w.transposed && !w.depthwise() && !w.bias_by_position;
}

// Pointwise with many positions: whoever takes a part of them through all steps is better off than with fewer weights.
// With signs above and below zero apart it is so with few positions, too: half the products do.
template <class T>
bool is_tall(const ConvWeights<T>& w, Index samples, const LoweredRule* rule) {
  constexpr Index kMany = 448;
  const Index positions = count(w.target());
  LoweredRule by_two;
  return w.pointwise() && positions >= kernels::table<T>().tile_rows &&
         (samples * positions >= kMany || (rule != nullptr && by_magnitude(*rule, &by_two)));
}

// s of all groups and targets, (groups, targets, samples, size of the output), into `shares`.
// false: too much of what is Known::kRest cancels.
template <class T>
bool make_shares(const ConvWeights<T>& w, const LoweredRule& rule, const RelevanceJob<T>& job, const PartOfJob<T>& part,
                 Known known, T* shares, const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const bool reuse = known == Known::kSum;
  const ChannelBases<T> bases(w, rule, reuse);
  const Index channels = w.target_channels(), size = w.target_size(), groups = static_cast<Index>(rule.groups.size());
  const auto share_rows = [&](const Run& run, Index column, Index columns, const T* const* z, Index z_stride,
                              kernels::Absorbed* absorbed) {
    const kernels::Shares<T> plan = shares_at_column(bases.plan, run.pixel * w.bias_step() + column);
    const Index at = run.pixel * channels + column;
    for (Index t = 0; t < part.targets; ++t) {
      T* s[kernels::kMaxGroups] = {};
      for (Index g = 0; g < groups; ++g) {
        s[g] = shares + ((g * part.targets + t) * part.samples + run.sample) * size + at;
      }
      kernel.shares(run.count, columns, plan, z, z_stride, job.relevance.row(part.row(job, t, run.sample)) + at,
                    run.step * channels, s, run.step * channels, absorbed ? absorbed + t : nullptr, 0);
    }
  };
  const auto share = [&](const Run& run, Index column, Index columns, const T* const* z, Index z_stride,
                         kernels::Absorbed* absorbed) {
    if (!w.bias_by_position) {
      share_rows(run, column, columns, z, z_stride, absorbed);
      return;
    }
    for (Index i = 0; i < run.count; ++i) {  // each position has biases of its own
      const T* of[kernels::kMaxSums] = {};
      for (std::size_t q = 0; q < rule.sums.size(); ++q) {
        of[q] = z[q] + i * z_stride;
      }
      share_rows({run.first + i, 1, run.sample, run.pixel + i * run.step, run.step}, column, columns, of, z_stride,
                 absorbed);
    }
  };
  // What is lost, by (task, samples a block meets, targets): added up in a fixed order afterwards.
  std::vector<kernels::Absorbed> lost;
  const auto add_up = [&](Index page, Index sample) {
    for (Index t = 0; t < part.targets; ++t) {
      add_absorbed(lost[static_cast<std::size_t>(page * part.targets + t)], &job.absorbed[part.row(job, t, sample)]);
    }
  };
  if (reuse) {
    constexpr Index kPixels = 1024;
    const Index pixels = count(w.target()), pieces = (pixels + kPixels - 1) / kPixels;
    lost.resize(static_cast<std::size_t>(part.samples * pieces * part.targets));
    parallel_for(part.samples * pieces, threads, [&](Index task) {
      const Index sample = task / pieces, first = task % pieces * kPixels;
      const Run run{0, std::min(kPixels, pixels - first), sample, first, 1};
      const T* const z[] = {job.output.row(part.begin + sample) + first * channels};
      share(run, 0, channels, z, channels, &lost[static_cast<std::size_t>(task * part.targets)]);
    });
    for (Index task = 0; task < part.samples * pieces; ++task) {
      add_up(task, task / pieces);
    }
    return true;
  }
  const Matrix<const T> input = job.inputs[0] ? job.inputs[0].slice(part.begin, part.samples) : Matrix<const T>{};
  const Parts<T> parts(w, input, job.bounds, rule, threads);
  const std::size_t computed = known == Known::kRest ? 1 : rule.sums.size();
  ConvSums<T> sums{&w, true, part.samples, {}, static_cast<Index>(computed), {}};
  for (std::size_t q = 0; q < computed; ++q) {
    for (const Tap& tap : rule.sums[q]) {
      sums.products.push_back({parts.image(tap.part), weights_of<T>(tap.map), static_cast<Index>(q)});
    }
  }
  RestOfOutput<T> rest(w, rule, parts, job.output ? job.output.slice(part.begin, part.samples) : Matrix<const T>{});
  // A block meets at most so many samples; pages (task, sample - first sample of the task's block).
  Index least = count(w.target());
  for (const Walk& walk : sums.walks()) {
    least = std::min(least, walk.count());
  }
  const Index meets = std::min(part.samples, std::max(kBlockRows, kOwnRows) / std::max<Index>(least, 1) + 2);
  const Index tasks = conv_tasks(sums);
  lost.resize(static_cast<std::size_t>(tasks * meets * part.targets));
  std::vector<Index> first_sample(static_cast<std::size_t>(tasks), -1);
  sums.done = [&](Index task, const Rows& block, Index column, Index columns, const SumsOf<T>& z, Index stride) {
    Index& first = first_sample[static_cast<std::size_t>(task)];
    first = first < 0 ? block.first_sample() : first;
    const T* of[kernels::kMaxSums] = {};
    const Buffer<T> left(known == Known::kRest ? block.count() * stride : 0);
    for (const Run& run : block.runs()) {
      for (std::size_t q = 0; q < computed; ++q) {
        of[q] = z(static_cast<Index>(q)) + run.first * stride;
      }
      if (known == Known::kRest) {
        T* const to = left.data() + run.first * stride;
        rest.subtract(block, run, column, columns, of[0], stride, to);
        of[1] = to;
      }
      share(run, column, columns, of, stride,
            &lost[static_cast<std::size_t>((task * meets + run.sample - first) * part.targets)]);
    }
  };
  conv_sums(sums, threads);
  if (rest.hopeless()) {
    return false;
  }
  for (Index task = 0; task < tasks; ++task) {
    const Index first = first_sample[static_cast<std::size_t>(task)];
    for (Index i = 0; i < meets && first >= 0 && first + i < part.samples; ++i) {
      add_up(task * meets + i, first + i);
    }
  }
  return true;
}

// Every input of a position receives the same, whatever the weights: R_in = 1^T s.
template <class T>
bool spreads_evenly(const ConvWeights<T>& w, const LoweredRule& rule) {
  std::array<double, kParts> only{};
  only[static_cast<std::size_t>(Part::kOne)] = 1;
  return rule.back.size() == 1 && rule.back[0].map.kind == MapKind::kOne && rule.back[0].factor == only &&
         !w.transposed && !w.depthwise() && w.shape.groups == 1;
}

// R_in of a part from its shares.
template <class T>
void spread_shares(const ConvWeights<T>& w, const LoweredRule& rule, const RelevanceJob<T>& job,
                   const PartOfJob<T>& part, const T* shares, const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index channels = w.source_channels(), rows = part.targets * part.samples;
  if (w.target_channels() > 1 && spreads_evenly(w, rule)) {  // so the channels may as well be added up before
    const Index pixels = count(w.target()), size = w.target_channels();
    const Buffer<T> totals(rows * pixels);
    constexpr Index kPixels = 512;
    const Index pieces = (rows * pixels + kPixels - 1) / kPixels;
    parallel_for(pieces, threads, [&](Index task) {
      for (Index i = task * kPixels; i < std::min(rows * pixels, (task + 1) * kPixels); ++i) {
        totals.data()[i] = static_cast<T>(kernel.sum(size, shares + i * size));
      }
    });
    ConvWeights<T> one = w;
    one.shape.out_channels = 1;
    spread_shares(one, rule, job, part, totals.data(), threads);
    return;
  }
  if (rule.back.empty()) {  // nothing receives
    for (Index i = 0; i < rows; ++i) {
      T* const result = job.results[0].row(part.row(job, i / part.samples, i % part.samples));
      std::fill_n(result, w.source_size(), T(0));
    }
    return;
  }
  if (is_narrow(w)) {
    spread_to_few(w, rule, job, part, shares, threads);
    return;
  }
  kernels::Mixed<T> plan;  // one a sum
  plan.count = 0;
  ConvSums<T> sums{&w, false, rows, {}, 0, {}};
  for (std::size_t b = 0; b < rule.back.size(); ++b) {
    const BackProduct& back = rule.back[b];
    if (!rule.joins(b)) {
      plan.mix[plan.count++] = mix_of<T>(back);
    }
    sums.products.push_back({{shares + back.group * rows * w.target_size(), w.target_size(), w.target_channels()},
                             weights_of<T>(back.map),
                             plan.count - 1});
  }
  sums.outputs = plan.count;
  sums.done = [&](Index, const Rows& block, Index column, Index columns, const SumsOf<T>& of, Index stride) {
    kernels::Mixed<T> mixed = plan;
    for (const Run& run : block.runs()) {
      const Index target = run.sample / part.samples, sample = run.sample % part.samples;
      const Index at = run.pixel * channels + column, step = run.step * channels;
      const T* const a = job.inputs[0] ? job.inputs[0].row(part.begin + sample) + at : nullptr;
      for (int b = 0; b < plan.count; ++b) {
        mixed.acc[b] = of(b) + run.first * stride;
      }
      kernel.accumulate(run.count, columns, mixed, stride, a, step, job.bounds.low ? job.bounds.low + at : nullptr,
                        job.bounds.high ? job.bounds.high + at : nullptr, step, false,
                        job.results[0].row(part.row(job, target, sample)) + at, step);
    }
  };
  conv_sums(sums, threads);
}

}  // namespace

template <class T>
ChannelBases<T>::ChannelBases(const ConvWeights<T>& w, const LoweredRule& rule, bool reuse) {
  constants = prepare_biases(w.bias, w.bias_size(), rule);
  const T* base[kernels::kMaxGroups] = {};
  const T* bias[kernels::kMaxGroups] = {};
  for (std::size_t g = 0; g < rule.groups.size(); ++g) {
    bias[g] = constants.groups[g].bias.data();
    base[g] = reuse ? nullptr : bias[g];
  }
  plan = shares_of<T>(rule, base, bias, reuse ? nullptr : w.bias);
}

template <class T>
Index conv_tasks(const ConvSums<T>& sums) {
  Index tasks = 0;
  for (const Walk& walk : sums.walks()) {
    const TapWork<T> work = work_of(sums, &walk);
    tasks += sums.weights->depthwise() ? depthwise_tasks(work.rows(), sums.weights->shape.in_channels) : work.tasks();
  }
  return tasks;
}

template <class T>
void conv_sums(const ConvSums<T>& sums, const Threads& threads) {
  if (sums.weights->depthwise()) {
    depthwise_sums(sums, threads);
    return;
  }
  const Index width = kernels::table<T>().tile_cols;
  Index base = 0;
  for (const Walk& walk : sums.walks()) {
    TapWork<T> work = work_of(sums, &walk);
    work.done = [&](Index task, const Rows& block, Index column, Index columns, const SumsOf<T>& of) {
      sums.done(base + task, block, column, columns, of, width);
    };
    multiply_taps(work, threads);
    base += work.tasks();
  }
}

template <class T>
void ConvLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_countable(weights_.shape);
  require_fit(inputs.size() == 1 && inputs[0] == weights_.source_size() && output == weights_.target_size(),
              "a convolution and the values beside it");
}

template <class T>
void ConvLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
                           const Threads& threads) const {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Matrix<const T> input = inputs[0];
  if (is_tall(weights_, input.rows, nullptr)) {
    pointwise_forward(weights_, input, output, clamp,
                      worth(bounded_product({weights_.products(), input.rows}), threads));
    return;
  }
  const Index channels = weights_.target_channels();
  ConvSums<T> sums{&weights_, true, input.rows, {}, 1, {}};
  sums.products.push_back({{input.data, input.stride, weights_.source_channels()}, weights_of<T>(WeightMap{}), 0});
  sums.done = [&](Index, const Rows& block, Index column, Index columns, const SumsOf<T>& of, Index stride) {
    for (const Run& run : block.runs()) {
      const Index together = weights_.bias_by_position ? 1 : run.count;  // positions with the same bias
      for (Index i = 0; i < run.count; i += together) {
        const Index pixel = run.pixel + i * run.step;
        kernel.finish(together, columns, of(0) + (run.first + i) * stride, stride,
                      weights_.bias ? weights_.bias + pixel * weights_.bias_step() + column : nullptr, clamp.low,
                      clamp.high, output.row(run.sample) + pixel * channels + column, run.step * channels);
      }
    }
  };
  conv_sums(sums, worth(bounded_product({weights_.products(), input.rows}), threads));
}

template <class T>
void ConvLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& all) const {
  if (job.relevance.rows == 0) {
    return;
  }
  // Constant terms are only there for sums that are not the plain output.
  const LoweredRule rule = with_constants_as_sums(job.rule->form(job.input_nonnegative, job.output_positive));
  const bool reuse = job.output && is_plain_output(weights_, rule);
  Known known = reuse ? Known::kSum : Known::kNothing;
  if (!reuse && job.output && job.output_positive && can_subtract(weights_, rule)) {
    known = Known::kRest;
  }
  const Threads threads = worth(bounded_product({weights_.products(), job.relevance.rows}), all);
  if (is_tall(weights_, job.batch, &rule) && !rule.back.empty()) {
    pointwise_relevance(weights_, rule, reuse, job, threads);
    return;
  }
  const Index groups = std::max<Index>(1, static_cast<Index>(rule.groups.size()));
  // s of one group takes the place of the relevance, unless that is needed again where too much cancels.
  const bool over = job.spare && groups == 1 && known != Known::kRest && job.spare.stride == weights_.target_size();
  const Index sample_bytes = groups * weights_.target_size() * static_cast<Index>(sizeof(T));
  const Index at_once = over ? job.relevance.rows  // rows of relevance
                             : std::max<Index>(1, kShareBytes / std::max<Index>(1, sample_bytes));
  const Index targets = std::min(job.targets(), at_once), samples = std::max<Index>(1, at_once / targets);
  for (Index begin = 0; begin < job.batch; begin += samples) {
    for (Index first = 0; first < job.targets(); first += targets) {
      const PartOfJob<T> part{begin, std::min(samples, job.batch - begin), first,
                              std::min(targets, job.targets() - first)};
      const Buffer<T> memory(over ? 0 : groups * part.targets * part.samples * weights_.target_size(),
                             threads.workspace);
      T* const shares = over ? job.spare.data : memory.data();
      if (!make_shares(weights_, rule, job, part, known, shares, threads)) {
        known = Known::kNothing;
        make_shares(weights_, rule, job, part, known, shares, threads);
      }
      spread_shares(weights_, rule, job, part, shares, threads);
    }
  }
}

template <class T>
bool ConvLayer<T>::reads_inputs(const CompiledRule* rule) const {
  return rule->any().reads_input();
}

template <class T>
bool ConvLayer<T>::reads_output(const CompiledRule* rule, bool at_hand) const {
  return is_plain_output(weights_, rule->any()) || (at_hand && can_subtract(weights_, rule->form(false, true)));
}

template struct ChannelBases<float>;
template struct ChannelBases<double>;
template class ConvLayer<float>;
template class ConvLayer<double>;

}  // namespace pylrp
