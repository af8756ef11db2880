// What the steps are made of: products over the taps, shares from complete sums, and the ledger of what is lost.
#include "layers/conv/steps.hpp"

#include <algorithm>

#include "base/pieces.hpp"
#include "kernels/dispatch.hpp"
#include "layers/conv/plan.hpp"
#include "products/rounded_images.hpp"
#include "products/tap_lists.hpp"
#include "products/tap_signs.hpp"

namespace pylrp {

// --- products ---

namespace {

template <class T>
PackTap<T> packer(const ConvWeights<T>& w, bool to_out) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index row = w.row_size(), out = w.shape.group_out();
  if (to_out) {  // columns are rows of the weights
    return [=, &kernel](const Cut& cut, kernels::Weights<T> map, T* to) {
      return kernel.pack_forward(static_cast<int>(cut.columns), cut.channels,
                                 w.at(cut.group * out + cut.column, cut.tap, cut.channel), row, map, to,
                                 kernel.tile_cols);
    };
  }
  return [=, &kernel](const Cut& cut, kernels::Weights<T> map, T* to) {
    return kernel.pack_backward(static_cast<int>(cut.columns), cut.channels,
                                w.at(cut.group * out + cut.channel, cut.tap, cut.column), row, map, to,
                                kernel.tile_cols);
  };
}

template <class T>
std::function<Matrix<const T>(const Cut&)> finder(const ConvWeights<T>& w, bool to_out) {
  return [=, &w](const Cut& cut) -> Matrix<const T> {
    const Index first = cut.group * w.shape.group_out();
    if (to_out) {
      return {w.at(first + cut.column, cut.tap, cut.channel), cut.columns, cut.channels, w.row_size()};
    }
    return {w.at(first + cut.channel, cut.tap, cut.column), cut.channels, cut.columns, w.row_size()};
  };
}

template <class T>
TapWork<T> work_of(const ConvSums<T>& sums, const Walk* walk, const Operands<T>& operands) {
  const ConvShape& shape = sums.weights->shape;
  const bool to_out = sums.to_out();
  const Index channels = to_out ? shape.group_in() : shape.group_out();
  return {walk,
          sums.samples,
          shape.groups,
          operands.places(channels),
          to_out ? shape.group_out() : shape.group_in(),
          sums.products,
          sums.outputs,
          packer(*sums.weights, to_out),
          {},
          operands,
          channels,
          finder(*sums.weights, to_out),
          sums.apart};
}

template <class T>
RoundedImages<T> rounded_images(const TapWork<T>& work, const Threads& threads) {
  const bool in_order =
      tap_zeros_count<T>(work.rows(), work.panels(), static_cast<Index>(work.walk->taps.size()), work.channels);
  return {work.operands,
          work.products,
          {work.samples, count(work.walk->source), work.groups, work.channels, work.steps},
          in_order,
          threads};
}

template <class T>
const ProductPath<T>* product_path(const ConvWeights<T>& w) {
  for (const ProductPath<T>& path : product_paths<T>()) {
    if (path.applies(w)) {
      return &path;
    }
  }
  return nullptr;
}

}  // namespace

template <class T>
Index conv_tasks(const ConvSums<T>& sums) {
  const ProductPath<T>* const path = product_path(*sums.weights);
  Index tasks = 0;
  for (const Walk& walk : sums.walks()) {
    tasks += path ? path->tasks(sums, walk) : work_of(sums, &walk, Operands<T>()).tasks();
  }
  return tasks;
}

template <class T>
void conv_sums(const ConvSums<T>& sums, const Threads& threads) {
  if (const ProductPath<T>* const path = product_path(*sums.weights)) {
    count_run(path->path);
    path->run(sums, threads);
    return;
  }
  count_run(ConvPath::kProduct);
  const Index width = kernels::table<T>().tile_cols;
  const Operands<T> operands(threads.bfloat16);
  const std::vector<Walk> walks = sums.walks();
  if (walks.empty()) {
    return;
  }
  const RoundedImages<T> images = rounded_images(work_of(sums, &walks.front(), operands), threads);
  Index base = 0;
  for (const Walk& walk : walks) {
    TapWork<T> work = work_of(sums, &walk, operands);
    work.products = images.products();
    join_signs(&work);
    work.done = [&](Index task, const Rows& block, Index column, Index columns, const SumsOf<T>& of) {
      sums.done(base + task, block, column, columns, of, width);
    };
    if (work.packs_in_tasks()) {
      count_run(ConvPath::kPackInTasks);
    }
    multiply_taps(work, threads);
    base += work.tasks();
  }
}

// --- shares ---

template <class T>
ShareConstants<T>::ShareConstants(const ConvWeights<T>& w, const LoweredRule& rule, bool sum_has_bias) {
  biases = prepare_biases(w.bias, w.bias_size(), rule);
  const T* base[kernels::kMaxGroups] = {};
  const T* bias[kernels::kMaxGroups] = {};
  for (std::size_t g = 0; g < rule.groups.size(); ++g) {
    bias[g] = biases.groups[g].bias.data();
    base[g] = sum_has_bias ? nullptr : bias[g];
  }
  args = shares_of<T>(rule, base, bias, sum_has_bias ? nullptr : w.bias);
}

template <class T>
void ShareWriter<T>::write_rows(const Run& run, Index column, Index columns, const T* const* z, Index z_stride,
                                kernels::Absorbed* lost) const {
  const ConvWeights<T>& w = call_.weights;
  const RelevanceJob<T>& job = call_.job;
  const Index channels = w.target_channels(), size = w.target_size();
  const Index groups = static_cast<Index>(call_.rule.groups.size()), at = run.pixel * channels + column;
  const kernels::Shares<T> args = shares_at_column(constants_.args, run.pixel * w.bias_step() + column);
  for (Index t = 0; t < slice_.targets; ++t) {
    T* s[kernels::kMaxGroups] = {};
    for (Index g = 0; g < groups; ++g) {
      s[g] = shares_ + ((g * slice_.targets + t) * slice_.samples + run.sample) * size + at;
    }
    kernels::table<T>().shares({.rows = run.count,
                                .cols = columns,
                                .rule = args,
                                .z = z,
                                .z_stride = z_stride,
                                .r = job.relevance.row(slice_.row(job, t, run.sample)) + at,
                                .r_stride = run.step * channels,
                                .s = s,
                                .s_stride = run.step * channels,
                                .ledger = lost ? lost + t : nullptr,
                                .ledger_step = 0});
  }
}

template <class T>
void ShareWriter<T>::write(const Run& run, Index column, Index columns, const T* const* z, Index z_stride,
                           kernels::Absorbed* lost) const {
  if (!call_.weights.bias_by_position) {
    write_rows(run, column, columns, z, z_stride, lost);
    return;
  }
  for (Index i = 0; i < run.count; ++i) {  // each position has biases of its own
    const T* of[kernels::kMaxSums] = {};
    for (std::size_t q = 0; q < call_.rule.sums.size(); ++q) {
      of[q] = z[q] + i * z_stride;
    }
    write_rows({run.first + i, 1, run.sample, run.pixel + i * run.step, run.step}, column, columns, of, z_stride, lost);
  }
}

template <class T>
SliceLedger<T>::SliceLedger(const BatchSlice& slice, const ConvSums<T>& sums)
    : slice_(slice), tasks_(conv_tasks(sums)), first_sample_(static_cast<std::size_t>(tasks_), -1) {
  Index least = count(sums.weights->target());
  for (const Walk& walk : sums.walks()) {
    least = std::min(least, walk.count());
  }
  samples_ = std::min(slice.samples, std::max(kBlockRows, kOwnRows) / std::max<Index>(least, 1) + 2);
  lost_.resize(static_cast<std::size_t>(tasks_ * samples_ * slice.targets));
}

template <class T>
kernels::Absorbed* SliceLedger<T>::at(Index task, const Rows& block, const Run& run) {
  Index& first = first_sample_[static_cast<std::size_t>(task)];
  first = block.first_sample();
  return &lost_[static_cast<std::size_t>((task * samples_ + run.sample - first) * slice_.targets)];
}

template <class T>
void SliceLedger<T>::add_to(const RelevanceJob<T>& job) const {
  for (Index task = 0; task < tasks_; ++task) {
    const Index first = first_sample_[static_cast<std::size_t>(task)];
    for (Index i = 0; i < samples_ && first >= 0 && first + i < slice_.samples; ++i) {
      add_lost(job, slice_, first + i, &lost_[static_cast<std::size_t>((task * samples_ + i) * slice_.targets)]);
    }
  }
}

template <class T>
void add_lost(const RelevanceJob<T>& job, const BatchSlice& slice, Index sample, const kernels::Absorbed* lost) {
  for (Index t = 0; t < slice.targets; ++t) {
    add_absorbed(lost[t], &job.absorbed[slice.row(job, t, sample)]);
  }
}

template <class T>
InputPartImages<T>::InputPartImages(const ConvCall<T>& call, const BatchSlice& slice)
    : channels_(call.weights.source_channels()),
      size_(call.weights.source_size()),
      input_(call.job.inputs[0] ? call.job.inputs[0].slice(slice.begin, slice.samples) : Matrix<const T>{}),
      bounds_(call.job.bounds) {
  const auto is_read = [&](Part part) {
    return std::any_of(call.rule.sums.begin(), call.rule.sums.end(), [&](const Sum& sum) {
      return std::any_of(sum.begin(), sum.end(), [&](const ProductTerm& tap) { return tap.part == part; });
    });
  };
  if (is_read(Part::kOne)) {
    ones_.reset(channels_);
    std::fill_n(ones_.data(), channels_, T(1));
  }
  for (const Part part : {Part::kPositive, Part::kNegative, Part::kMagnitude}) {
    if (is_read(part)) {
      Buffer<T>& image = part == Part::kPositive ? positive_ : (part == Part::kNegative ? negative_ : magnitude_);
      image.reset(input_.rows * size_, call.threads.workspace);
      each_piece(input_.rows, size_, call.threads, [&](Index, Index row, Index first, Index count) {
        kernels::table<T>().part_of(count, input_.row(row) + first, sign_of(part), image.data() + row * size_ + first);
      });
    }
  }
}

template <class T>
Image<T> InputPartImages<T>::image(Part part) const {
  switch (part) {
    case Part::kInput:
      return {input_.data, input_.stride, channels_};
    case Part::kPositive:
      return {positive_.data(), size_, channels_};
    case Part::kNegative:
      return {negative_.data(), size_, channels_};
    case Part::kOne:
      return {ones_.data(), 0, 0};
    case Part::kLow:
      return {bounds_.low, 0, channels_};
    case Part::kHigh:
      return {bounds_.high, 0, channels_};
    case Part::kMagnitude:
      return {magnitude_.data(), size_, channels_};
  }
  return {};
}

template <class T>
ConvSums<T> sums_of_rule(const ConvCall<T>& call, const BatchSlice& slice, const InputPartImages<T>& images,
                         std::size_t count) {
  ConvSums<T> sums{&call.weights, Direction::kForward, slice.samples, {}, static_cast<Index>(count), {}};
  for (std::size_t q = 0; q < count; ++q) {
    for (const ProductTerm& tap : call.rule.sums[q]) {
      sums.products.push_back({images.image(tap.part), weights_of<T>(tap.map), static_cast<Index>(q)});
    }
  }
  return sums;
}

#define PYLRP_INSTANTIATE(T)                                                                             \
  template void conv_sums<T>(const ConvSums<T>&, const Threads&);                                        \
  template Index conv_tasks<T>(const ConvSums<T>&);                                                      \
  template struct ShareConstants<T>;                                                                     \
  template class ShareWriter<T>;                                                                         \
  template class SliceLedger<T>;                                                                         \
  template void add_lost<T>(const RelevanceJob<T>&, const BatchSlice&, Index, const kernels::Absorbed*); \
  template class InputPartImages<T>;                                                                     \
  template ConvSums<T> sums_of_rule<T>(const ConvCall<T>&, const BatchSlice&, const InputPartImages<T>&, std::size_t);
PYLRP_INSTANTIATE(float)
PYLRP_INSTANTIATE(double)
#undef PYLRP_INSTANTIATE

}  // namespace pylrp
