// A convolution with a kernel of one is a dense layer at every position, and nothing of a position depends on its
// neighbours: a task takes some positions through sums, shares and back products while they are in the L2 cache.
#include "layers/conv/fused_1x1.hpp"

#include <algorithm>

#include "kernels/dispatch.hpp"
#include "layers/conv/positions.hpp"
#include "layers/conv/switches.hpp"

namespace pylrp {
namespace {

constexpr Index kMinPositions = 448;  // of all samples: with fewer, packing the weights costs more than is won

template <class T>
bool fills_a_tile(const ConvWeights<T>& w) {
  return w.is_1x1() && count(w.target()) >= kernels::table<T>().tile_rows;
}

template <class T>
bool forward_applies(const ConvWeights<T>& w, Matrix<const T> input, const Threads&) {
  return fills_a_tile(w) && input.rows * count(w.target()) >= kMinPositions;
}

template <class T>
void forward_run(const ConvWeights<T>& w, Matrix<const T> input, Matrix<T> output, const Clamp<T>& clamp,
                 const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index in = w.source_channels(), out = w.target_channels(), stride = padded(out, kernel.tile_cols);
  PanelSet<T> panels(w.matrix(), threads.workspace, Operands<T>(threads.bfloat16));
  const std::size_t plain = panels.add(WeightMap{}, Direction::kForward);
  panels.pack(threads);
  const PositionTasks tasks(input.rows, count(w.target()), (in + 2 * stride) * static_cast<Index>(sizeof(T)),
                            kernel.tile_rows);
  tasks.each(threads, [&](Index, Index sample, Index first, Index rows) {
    const Buffer<T> sums(rows * stride);
    multiply_by_panels(input.row(sample) + first * in, in, rows, panels.forward(plain), false, sums.data(), stride);
    kernel.finish({.rows = rows,
                   .cols = out,
                   .acc = sums.data(),
                   .acc_stride = stride,
                   .bias = w.bias,
                   .low = clamp.low,
                   .high = clamp.high,
                   .out = output.row(sample) + first * out,
                   .out_stride = out});
  });
}

template <class T>
bool may_run(const ConvWeights<T>& w, const LoweredRule& rule) {
  return fills_a_tile(w) && !rule.back.empty();
}

// With signs by magnitude it saves half of the products, which pays off with few positions, too.
template <class T>
bool applies(const ConvCall<T>& call) {
  return call.job.batch * count(call.weights.target()) >= kMinPositions || call.form.by_magnitude;
}

template <class T>
std::unique_ptr<FusedShortcut<T>> shortcut_of([[maybe_unused]] const ConvCall<T>& call,
                                              [[maybe_unused]] const FusedProducts<T>& usual) {
#if PYLRP_CONV_SIGNS_BY_MAGNITUDE
  return signs_by_magnitude(call, usual);
#else
  return nullptr;
#endif
}

template <class T>
void run(const ConvCall<T>& call) {
  const RelevanceJob<T>& job = call.job;
  const Index targets = job.targets();
  if (call.output_is_sum()) {
    count_run(ConvPath::kOutputAsSum);
  }
  const FusedProducts<T> usual(call.weights, call.rule, call.output_is_sum(), call.threads);
  const std::unique_ptr<FusedShortcut<T>> shortcut = shortcut_of(call, usual);
  if (shortcut == nullptr) {
    usual.panels.pack(call.threads);
  }
  const PositionTasks tasks(job.batch, count(call.weights.target()), usual.row_bytes(), kernels::table<T>().tile_rows);
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(tasks.count() * targets));
  tasks.each(call.threads, [&](Index task, Index sample, Index first, Index rows) {
    kernels::Absorbed* const lost_here = &lost[static_cast<std::size_t>(task * targets)];
    if (shortcut != nullptr && shortcut->run(sample, first, rows, lost_here)) {
      return;
    }
    FusedBlock<T> block(call, usual, sample, first, rows);
    block.compute_sums();
    for (Index t = 0; t < targets; ++t) {
      block.compute_shares(block.relevance(t), lost_here + t);
      block.send_back(t, {});
    }
  });
  const BatchSlice all{0, job.batch, 0, targets};
  for (Index task = 0; task < tasks.count(); ++task) {
    add_lost(job, all, task / tasks.parts, &lost[static_cast<std::size_t>(task * targets)]);
  }
}

}  // namespace

template <class T>
FusedProducts<T>::FusedProducts(const ConvWeights<T>& w, const LoweredRule& of, bool sum_is_output_,
                                const Threads& threads)
    : rule(of),
      sum_is_output(sum_is_output_),
      constants(w, of, sum_is_output_),
      panels(w.matrix(), threads.workspace, Operands<T>(threads.bfloat16)) {
  const Index width = kernels::table<T>().tile_cols;
  in_stride = padded(w.source_channels(), width);
  out_stride = padded(w.target_channels(), width);
  if (!sum_is_output) {
    for (const Sum& sum : rule.sums) {
      forward.emplace_back();
      for (const ProductTerm& tap : sum) {
        forward.back().push_back(panels.add(tap.map, Direction::kForward));
      }
    }
  }
  for (std::size_t b = 0; b < rule.back.size(); ++b) {
    backward.push_back(panels.add(rule.back[b].map, Direction::kBackward));
    back_sums += rule.joins(b) ? 0 : 1;
  }
  ones.assign(static_cast<std::size_t>(rule.reads(Part::kOne) ? w.source_channels() : 0), T(1));
}

template <class T>
FusedBlock<T>::FusedBlock(const ConvCall<T>& call, const FusedProducts<T>& products, Index sample, Index first,
                          Index rows)
    : call_(call),
      products_(products),
      sample_(sample),
      first_(first),
      rows_(rows),
      in_(call.weights.source_channels()),
      out_(call.weights.target_channels()),
      x_(call.job.inputs[0] ? call.job.inputs[0].row(sample) + first * in_ : nullptr),
      low_(call.job.bounds.low ? call.job.bounds.low + first * in_ : nullptr),
      high_(call.job.bounds.high ? call.job.bounds.high + first * in_ : nullptr) {}

template <class T>
const T* FusedBlock<T>::relevance(Index target) const {
  return call_.job.relevance.row(target * call_.job.batch + sample_) + first_ * out_;
}

template <class T>
const T* FusedBlock<T>::input_part(Part part, Index* stride) {
  *stride = part == Part::kOne ? 0 : in_;
  switch (part) {
    case Part::kInput:
      return x_;
    case Part::kOne:
      return products_.ones.data();
    case Part::kLow:
      return low_;
    case Part::kHigh:
      return high_;
    case Part::kPositive:
    case Part::kNegative:
    case Part::kMagnitude:
      break;
  }
  const int sign = sign_of(part);
  Buffer<T>& made = parts_[sign + 1];
  if (made.data() == nullptr) {
    made.reset(rows_ * in_);
    kernel_.part_of(rows_ * in_, x_, sign, made.data());
  }
  return made.data();
}

template <class T>
void FusedBlock<T>::compute_sums() {
  const Index out_size = rows_ * products_.out_stride, sums = products_.sums(), groups = products_.groups();
  memory_.reset((sums + groups) * out_size + products_.back_sums * rows_ * products_.in_stride);
  for (Index g = 0; g < groups; ++g) {
    s_[g] = memory_.data() + (sums + g) * out_size;
  }
  back_ = memory_.data() + (sums + groups) * out_size;
  z_[0] = call_.job.output ? call_.job.output.row(sample_) + first_ * out_ : nullptr;
  for (std::size_t q = 0; q < products_.forward.size(); ++q) {
    T* const sum = memory_.data() + static_cast<Index>(q) * out_size;
    z_[q] = sum;
    for (std::size_t i = 0; i < products_.forward[q].size(); ++i) {
      Index stride = 0;
      const T* const from = input_part(products_.rule.sums[q][i].part, &stride);
      multiply_by_panels(from, stride, rows_, products_.panels.forward(products_.forward[q][i]), i > 0, sum,
                         products_.out_stride);
    }
  }
}

template <class T>
void FusedBlock<T>::compute_shares(const T* relevance, kernels::Absorbed* lost) {
  kernel_.shares({.rows = rows_,
                  .cols = out_,
                  .rule = products_.constants.args,
                  .z = z_,
                  .z_stride = products_.sum_is_output ? out_ : products_.out_stride,
                  .r = relevance,
                  .r_stride = out_,
                  .s = s_,
                  .s_stride = products_.out_stride,
                  .ledger = lost,
                  .ledger_step = 0});
}

template <class T>
void FusedBlock<T>::send_back(Index target, const kernels::Mixed<T>& more) {
  const LoweredRule& rule = products_.rule;
  const Index stride = products_.in_stride, size = rows_ * stride;
  kernels::Mixed<T> mixed = more;
  Index made = 0;
  for (std::size_t b = 0; b < rule.back.size(); ++b) {
    if (!rule.joins(b)) {
      mixed.acc[mixed.count] = back_ + made++ * size;
      mixed.mix[mixed.count++] = mix_of<T>(rule.back[b]);
    }
    multiply_by_panels<T>(s_[rule.back[b].group], products_.out_stride, rows_,
                          products_.panels.backward(products_.backward[b]), rule.joins(b), back_ + (made - 1) * size,
                          stride);
  }
  const Index row = target * call_.job.batch + sample_;
  kernel_.accumulate({.rows = rows_,
                      .cols = in_,
                      .mixed = mixed,
                      .acc_stride = stride,
                      .a = x_,
                      .a_stride = in_,
                      .low = low_,
                      .high = high_,
                      .bound_stride = in_,
                      .add = false,
                      .out = call_.job.results[0].row(row) + first_ * in_,
                      .out_stride = in_});
}

template <class T>
ForwardPath<T> fused_1x1_forward() {
  return {ConvPath::kFused1x1Forward, forward_applies<T>, forward_run<T>};
}

template <class T>
RelevancePath<T> fused_1x1() {
  return {ConvPath::kFused1x1, may_run<T>, applies<T>, run<T>};
}

#define PYLRP_INSTANTIATE(T)                      \
  template struct FusedProducts<T>;               \
  template class FusedBlock<T>;                   \
  template ForwardPath<T> fused_1x1_forward<T>(); \
  template RelevancePath<T> fused_1x1<T>();
PYLRP_INSTANTIATE(float)
PYLRP_INSTANTIATE(double)
#undef PYLRP_INSTANTIATE

}  // namespace pylrp
