// The general case of every step, for any weights (strided, padded, dilated, grouped, transposed, with a bias at each
// position) and any rule. A sample goes through forward() as
//   z = sum over taps of W a, + bias
// and through relevance() as
//   sums Z_q = sum over taps of rho_q(W) x_q       rho_q, x_q: the weight map and the part of the input of a product
//   s_g = R / stab(sum_q coef_gq Z_q + bias)       as soon as the sums of a block of positions are complete
//   R_in = sum_b x_b * (rho_b(W)^T s_b)
#include "layers/conv/conv.hpp"

#include <algorithm>

#include "kernels/dispatch.hpp"
#include "layers/conv/plan.hpp"

namespace pylrp {
namespace {

constexpr Index kShareBytes =
    Index{32} << 20;  // of s at a time: a batch or several targets that need more go in slices

template <class T>
Threads team_for(const ConvWeights<T>& w, Index samples, const Threads& threads) {
  const Index least = w.depthwise() ? kMinProductsForThreadsDepthwise : kMinProductsForThreadsConv;
  return threads.alone_if(bounded_product({w.products(), samples}) < least);
}

// --- forward ---

template <class T>
void forward_general(const ConvWeights<T>& w, Matrix<const T> input, Matrix<T> output, const Clamp<T>& clamp,
                     const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index channels = w.target_channels();
  ConvSums<T> sums{&w, Direction::kForward, input.rows, {}, 1, {}};
  sums.products.push_back({{input.data, input.stride, w.source_channels()}, weights_of<T>(WeightMap{}), 0});
  sums.done = [&](Index, const Rows& block, Index column, Index columns, const SumsOf<T>& of, Index stride) {
    for (const Run& run : block.runs()) {
      const Index together = w.bias_by_position ? 1 : run.count;  // positions with the same bias
      for (Index i = 0; i < run.count; i += together) {
        const Index pixel = run.pixel + i * run.step;
        kernel.finish({.rows = together,
                       .cols = columns,
                       .acc = of(0) + (run.first + i) * stride,
                       .acc_stride = stride,
                       .bias = w.bias ? w.bias + pixel * w.bias_step() + column : nullptr,
                       .low = clamp.low,
                       .high = clamp.high,
                       .out = output.row(run.sample) + pixel * channels + column,
                       .out_stride = run.step * channels});
      }
    }
  };
  conv_sums(sums, threads);
}

// --- shares ---

template <class T>
void shares_general(const ConvCall<T>& call, const BatchSlice& slice, T* shares) {
  const std::size_t count = call.rule.sums.size();
  const InputPartImages<T> images(call, slice);
  ConvSums<T> sums = sums_of_rule(call, slice, images, count);
  SliceLedger<T> lost(slice, sums);
  const ShareWriter<T> writer(call, slice, false, shares);
  sums.done = [&](Index task, const Rows& block, Index column, Index columns, const SumsOf<T>& of, Index stride) {
    for (const Run& run : block.runs()) {
      const T* z[kernels::kMaxSums] = {};
      for (std::size_t q = 0; q < count; ++q) {
        z[q] = of(static_cast<Index>(q)) + run.first * stride;
      }
      writer.write(run, column, columns, z, stride, lost.at(task, block, run));
    }
  };
  conv_sums(sums, call.threads);
  lost.add_to(call.job);
}

// --- backward ---

template <class T>
void backward_general(const ConvCall<T>& call, const BatchSlice& slice, const T* shares) {
  const ConvWeights<T>& w = call.weights;
  const RelevanceJob<T>& job = call.job;
  const LoweredRule& rule = call.rule;
  const Index channels = w.source_channels(), rows = slice.rows();
  const auto result = [&](Index row) {
    return job.results[0].row(slice.row(job, row / slice.samples, row % slice.samples));
  };
  if (rule.back.empty()) {  // nothing receives
    for (Index i = 0; i < rows; ++i) {
      std::fill_n(result(i), w.source_size(), T(0));
    }
    return;
  }
  kernels::Mixed<T> factors;  // of each sum
  factors.count = 0;
  ConvSums<T> sums{&w, Direction::kBackward, rows, {}, 0, {}};
  for (std::size_t b = 0; b < rule.back.size(); ++b) {
    const BackProduct& back = rule.back[b];
    if (!rule.joins(b)) {
      factors.mix[factors.count++] = mix_of<T>(back);
    }
    sums.products.push_back({{shares + back.group * rows * w.target_size(), w.target_size(), w.target_channels()},
                             weights_of<T>(back.map),
                             factors.count - 1});
  }
  sums.outputs = factors.count;
  sums.apart = slice.targets > 1 ? slice.samples : 0;
  sums.done = [&](Index, const Rows& block, Index column, Index columns, const SumsOf<T>& of, Index stride) {
    kernels::Mixed<T> mixed = factors;
    for (const Run& run : block.runs()) {
      const Index at = run.pixel * channels + column, step = run.step * channels;
      const Index sample = slice.begin + run.sample % slice.samples;
      for (int b = 0; b < factors.count; ++b) {
        mixed.acc[b] = of(b) + run.first * stride;
      }
      kernels::table<T>().accumulate({.rows = run.count,
                                      .cols = columns,
                                      .mixed = mixed,
                                      .acc_stride = run.every * stride,
                                      .a = job.inputs[0] ? job.inputs[0].row(sample) + at : nullptr,
                                      .a_stride = step,
                                      .low = job.bounds.low ? job.bounds.low + at : nullptr,
                                      .high = job.bounds.high ? job.bounds.high + at : nullptr,
                                      .bound_stride = step,
                                      .add = false,
                                      .out = result(run.sample) + at,
                                      .out_stride = step});
    }
  };
  conv_sums(sums, call.threads);
}

// --- the layer: the paths that apply, in order, then the general case ---

// paths: those that apply; a path that gives up goes, for the other slices, too.
template <class T>
void make_shares(const ConvCall<T>& call, const BatchSlice& slice, std::vector<const SharesPath<T>*>* paths,
                 T* shares) {
  while (!paths->empty()) {
    const SharesPath<T>& path = *paths->front();
    count_run(path.path);
    if (path.run(call, slice, shares)) {
      return;
    }
    paths->erase(paths->begin());
  }
  count_run(ConvPath::kShares);
  shares_general(call, slice, shares);
}

}  // namespace

template <class T>
void send_back(const ConvCall<T>& call, const BatchSlice& slice, const T* shares) {
  if (!call.form.backward.empty()) {
    const BackwardPath<T>& path = call.form.backward.front();
    count_run(path.path);
    path.run(call, slice, shares);
    return;
  }
  count_run(ConvPath::kBackward);
  backward_general(call, slice, shares);
}

namespace {

template <class T>
void relevance_in_slices(const ConvCall<T>& call) {
  const RelevanceJob<T>& job = call.job;
  const Index size = call.weights.target_size();
  std::vector<const SharesPath<T>*> paths;
  bool may_give_up = false;
  for (const SharesPath<T>& path : call.form.shares) {
    if (path.applies(call)) {
      paths.push_back(&path);
      may_give_up = may_give_up || path.may_give_up;
    }
  }
  const SlicePath<T>* whole = nullptr;  // does both steps, until it gives up
  for (const SlicePath<T>& path : call.form.slices) {
    whole = whole == nullptr && path.applies(call) ? &path : whole;
  }
  may_give_up = may_give_up || whole != nullptr;
  const Index groups = std::max<Index>(1, static_cast<Index>(call.rule.groups.size()));
  // s of one group takes the place of the relevance, unless that may be needed again.
  const bool in_place = job.spare && groups == 1 && !may_give_up && job.spare.stride == size;
  const Index row_bytes = groups * size * static_cast<Index>(sizeof(T));
  const Index rows = in_place ? job.relevance.rows : std::max<Index>(1, kShareBytes / std::max<Index>(1, row_bytes));
  const Index targets = std::min(job.targets(), rows), samples = std::max<Index>(1, rows / targets);
  for (Index begin = 0; begin < job.batch; begin += samples) {
    for (Index first = 0; first < job.targets(); first += targets) {
      const BatchSlice slice{begin, std::min(samples, job.batch - begin), first,
                             std::min(targets, job.targets() - first)};
      const Buffer<T> memory(in_place ? 0 : groups * slice.rows() * size, call.threads.workspace);
      T* const shares = in_place ? job.spare.data : memory.data();
      if (whole != nullptr) {
        count_run(whole->path);
        if (whole->run(call, slice, shares)) {
          continue;
        }
        whole = nullptr;
      }
      make_shares(call, slice, &paths, shares);
      send_back(call, slice, static_cast<const T*>(shares));
    }
  }
}

}  // namespace

template <class T>
void ConvLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_countable(weights_.shape);
  require_fit(inputs.size() == 1 && inputs[0] == weights_.source_size() && output == weights_.target_size(),
              "a convolution and the values beside it");
}

template <class T>
void ConvLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
                           const Threads& all) const {
  const Matrix<const T> input = inputs[0];
  const Threads threads = team_for(weights_, input.rows, all);
  for (const ForwardPath<T>& path : forward_paths<T>()) {
    if (path.applies(weights_, input, threads)) {
      count_run(path.path);
      path.run(weights_, input, output, clamp, threads);
      return;
    }
  }
  count_run(ConvPath::kForward);
  forward_general(weights_, input, output, clamp, threads);
}

template <class T>
void ConvLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& all) const {
  if (job.relevance.rows == 0) {
    return;
  }
  const auto* const plan = static_cast<const ConvPlan<T>*>(job.prepared);
  const ConvForm<T>* form = plan ? plan->form(job.input_nonnegative, job.output_positive) : nullptr;
  std::optional<ConvForm<T>> made;
  if (form == nullptr) {
    form = &made.emplace(weights_, job.rule->form(job.input_nonnegative, job.output_positive));
  }
  const Threads threads = team_for(weights_, job.relevance.rows, all);
  const ConvCall<T> call{weights_, *form, form->rule, job, threads};
  for (const RelevancePath<T>& path : form->relevance) {
    if (path.applies(call)) {
      count_run(path.path);
      path.run(call);
      return;
    }
  }
  relevance_in_slices(call);
}

template <class T>
bool ConvLayer<T>::reads_inputs(const CompiledRule* rule) const {
  return rule->any().reads_input();
}

template <class T>
bool ConvLayer<T>::reads_output(const CompiledRule* rule, bool at_hand) const {
  return may_run(ConvPath::kOutputAsSum, weights_, rule->any()) ||
         (at_hand && may_run(ConvPath::kSumBySubtraction, weights_, rule->form(false, true)));
}

// Of z+ it saves 2 to 4 % of an explanation, which is not worth an output a convolution in memory: only where it is
// at hand.
template <class T>
bool ConvLayer<T>::reads_output_of_signed(const CompiledRule* rule, bool at_hand) const {
  return !weights_.depthwise() && (at_hand || rule->any().sums.size() > 1) &&
         ConvForm<T>(weights_, rule->any()).magnitudes.has_value();
}

template <class T>
std::unique_ptr<Prepared> ConvLayer<T>::prepare(const CompiledRule& rule, const Bounds<T>&, const Threads&) const {
  return std::make_unique<ConvPlan<T>>(weights_, rule);
}

#define PYLRP_INSTANTIATE(T)                                                   \
  template void send_back<T>(const ConvCall<T>&, const BatchSlice&, const T*); \
  template class ConvLayer<T>;
PYLRP_INSTANTIATE(float)
PYLRP_INSTANTIATE(double)
#undef PYLRP_INSTANTIATE

}  // namespace pylrp
