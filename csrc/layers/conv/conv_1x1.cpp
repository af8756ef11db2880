// A convolution with a kernel of one: a dense layer at every position. Nothing of a position depends on its neighbours,
// so a task takes some positions through all steps (sums, shares, relevance) while they are in its cache.
#include <algorithm>
#include <mutex>
#include <optional>

#include "kernels/dispatch.hpp"
#include "layers/conv/conv.hpp"
#include "products/panels.hpp"
#include "rules/kernel_args.hpp"

namespace pylrp {
namespace {

constexpr Index kTasks = 4;                 // of a sample, wanted at least
constexpr Index kBytes = Index{384} << 10;  // of a task's arrays: they stay in the L2 cache

// Positions of all samples in tasks that need `row_bytes` a position: body(task, sample, first position, positions).
struct Positions {
  Index samples, positions, parts;
  Positions(Index samples_, Index positions_, Index row_bytes, Index tile_rows)
      : samples(samples_), positions(positions_) {
    const Index fitting = std::max<Index>(1, kBytes / row_bytes / tile_rows) * tile_rows;
    const Index tiles = (positions + tile_rows - 1) / tile_rows;
    parts = std::clamp<Index>((positions + fitting - 1) / fitting, std::min(kTasks, (tiles + 1) / 2), tiles);
  }
  Index tasks() const { return samples * parts; }
  template <class Body>
  void each(const Threads& threads, Body body) const {
    parallel_for(tasks(), threads, [&](Index task) {
      const Index part = task % parts, first = positions * part / parts;
      body(task, task / parts, first, positions * (part + 1) / parts - first);
    });
  }
};

// A rule as products with packed weights.
template <class T>
class Form {
 public:
  Form(const ConvWeights<T>& w, const LoweredRule& of, bool reuse, Workspace* workspace)
      : rule(of), reused(reuse), bases(w, of, reuse), panels(w.matrix(), workspace), in_(w.source_channels()) {
    const Index width = kernels::table<T>().tile_cols;
    in_stride = padded(in_, width);
    out_stride = padded(w.target_channels(), width);
    if (!reuse) {
      for (const Sum& sum : rule.sums) {
        up.emplace_back();
        for (const Tap& tap : sum) {
          up.back().push_back(panels.add(tap.map, true));
        }
      }
    }
    for (std::size_t b = 0; b < rule.back.size(); ++b) {
      down.push_back(panels.add(rule.back[b].map, false));
      backs += rule.joins(b) ? 0 : 1;
    }
    ones.assign(static_cast<std::size_t>(rule.reads(Part::kOne) ? in_ : 0), T(1));
  }
  void pack(const Threads& threads) const { panels.pack(threads); }
  Index sums() const { return static_cast<Index>(up.size()); }
  Index groups() const { return static_cast<Index>(rule.groups.size()); }
  Index row_bytes() const {
    return ((3 + backs) * in_stride + (sums() + groups() + 1) * out_stride) * static_cast<Index>(sizeof(T));
  }

  const LoweredRule& rule;
  bool reused;  // the output stands for the one sum
  ChannelBases<T> bases;
  PanelSet<T> panels;
  std::vector<std::vector<std::size_t>> up;  // panels of each sum
  std::vector<std::size_t> down;             // of each back product
  Index backs = 0;                           // sums of back products
  Index in_stride, out_stride;
  std::vector<T> ones;

 private:
  Index in_;
};

// Some positions of a sample on their way through the layer.
template <class T>
class Piece {
 public:
  Piece(const ConvWeights<T>& w, const Form<T>& form, const RelevanceJob<T>& job, Index sample, Index first, Index rows)
      : w_(w),
        form_(form),
        job_(job),
        sample_(sample),
        first_(first),
        rows_(rows),
        in_(w.source_channels()),
        out_(w.target_channels()),
        x_(job.inputs[0] ? job.inputs[0].row(sample) + first * in_ : nullptr),
        low_(job.bounds.low ? job.bounds.low + first * in_ : nullptr),
        high_(job.bounds.high ? job.bounds.high + first * in_ : nullptr) {}

  // `exact`: where the form cancels, that one says what is right. false: it cancels too often, nothing has been done.
  bool run(kernels::Absorbed* absorbed, const Form<T>* exact) {
    const LoweredRule& rule = form_.rule;
    const Index in_stride = form_.in_stride, out_stride = form_.out_stride;
    const Buffer<T> memory(rows_ * ((form_.sums() + form_.groups()) * out_stride + form_.backs * in_stride));
    T* const sum_memory = memory.data();
    T* const share_memory = sum_memory + form_.sums() * rows_ * out_stride;
    T* const back_memory = share_memory + form_.groups() * rows_ * out_stride;
    const T* z[kernels::kMaxSums] = {job_.output ? job_.output.row(sample_) + first_ * out_ : nullptr};
    for (std::size_t q = 0; q < form_.up.size(); ++q) {
      T* const sum = sum_memory + static_cast<Index>(q) * rows_ * out_stride;
      for (std::size_t i = 0; i < form_.up[q].size(); ++i) {
        Index stride = 0;
        const T* const from = source(rule.sums[q][i].part, &stride);
        multiply(from, stride, rows_, form_.panels.up(form_.up[q][i]), i > 0, sum, out_stride);
      }
      z[q] = sum;
    }
    std::vector<Index> doubtful;
    if (exact != nullptr) {
      doubtful.resize(static_cast<std::size_t>(rows_ * out_ / 32 + 1));
      const Index most = static_cast<Index>(doubtful.size());
      const Index found = kernel_.cancelled(rows_, out_, z[0], z[1], out_stride, most, doubtful.data());
      if (found > most) {
        return false;
      }
      doubtful.resize(static_cast<std::size_t>(found));
    }
    T* s[kernels::kMaxGroups] = {};
    for (Index g = 0; g < form_.groups(); ++g) {
      s[g] = share_memory + g * rows_ * out_stride;
    }
    for (Index t = 0; t < job_.targets(); ++t) {
      const Index row = t * job_.batch + sample_;
      const T* const relevance = job_.relevance.row(row) + first_ * out_;
      const T* served = relevance;
      Buffer<T> copy;
      if (!doubtful.empty()) {  // those entries get theirs from the exact sums
        copy.reset(rows_ * out_);
        std::copy_n(relevance, rows_ * out_, copy.data());
        for (const Index entry : doubtful) {
          copy.data()[entry] = T(0);
        }
        served = copy.data();
      }
      kernel_.shares(rows_, out_, form_.bases.plan, z, form_.reused ? out_ : out_stride, served, out_, s, out_stride,
                     absorbed + t, 0);
      kernels::Mixed<T> mixed;
      mixed.count = 0;
      Buffer<T> corrections;
      if (!doubtful.empty()) {
        correct(*exact, doubtful, relevance, &corrections, absorbed + t);
        mixed.acc[0] = corrections.data();
        mixed.mix[0] = {0, 1, 0, 0, 0, 0};
        mixed.acc[1] = corrections.data() + rows_ * in_stride;
        mixed.mix[1] = {0, 0, 1, 0, 0, 0};
        mixed.count = 2;
      }
      Index made = 0;
      for (std::size_t b = 0; b < rule.back.size(); ++b) {
        if (!rule.joins(b)) {
          mixed.acc[mixed.count] = back_memory + made++ * rows_ * in_stride;
          mixed.mix[mixed.count++] = mix_of<T>(rule.back[b]);
        }
        multiply(s[rule.back[b].group], out_stride, rows_, form_.panels.down(form_.down[b]), rule.joins(b),
                 back_memory + (made - 1) * rows_ * in_stride, in_stride);
      }
      kernel_.accumulate(rows_, in_, mixed, in_stride, x_, in_, low_, high_, in_, false,
                         job_.results[0].row(row) + first_ * in_, in_);
    }
    return true;
  }

 private:
  const T* source(Part part, Index* stride) {
    *stride = part == Part::kOne ? 0 : in_;
    switch (part) {
      case Part::kInput:
        return x_;
      case Part::kOne:
        return form_.ones.data();
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

  // Entries whose sums have cancelled: what they send goes by the exact sums into what a+ and a- will be multiplied
  // with, (2, rows, in).
  void correct(const Form<T>& exact, const std::vector<Index>& entries, const T* relevance, Buffer<T>* corrections,
               kernels::Absorbed* absorbed) {
    corrections->reset(2 * rows_ * form_.in_stride);
    std::fill_n(corrections->data(), 2 * rows_ * form_.in_stride, T(0));
    const T one = 1;
    for (const Index entry : entries) {
      const Index row = entry / out_, column = entry % out_;
      T value[2] = {}, *to[2] = {&value[0], &value[1]};
      if (relevance[row * out_ + column] == 0) {
        continue;
      }
      const T* const weights = w_.weight + column * in_;
      T sums[2] = {};
      for (std::size_t q = 0; q < 2; ++q) {
        for (const Tap& tap : exact.rule.sums[q]) {
          Index stride = 0;
          const T* const from = source(tap.part, &stride) + row * stride;
          kernel_.rows_dot(1, &weights, in_, weights_of<T>(tap.map), from, &sums[q], nullptr);
        }
      }
      const T* const z[2] = {&sums[0], &sums[1]};
      kernel_.shares(1, 1, shares_at_column(exact.bases.plan, column), z, 1, &relevance[row * out_ + column], 1, to, 1,
                     absorbed, 0);
      // a+ w+ and a- w- are contributions above zero, the others below.
      T* const down = corrections->data() + row * form_.in_stride;
      kernel_.rows_axpy(1, &weights, in_, {kernels::Read::kMixed, value[0], value[1]}, &one, down, nullptr);
      kernel_.rows_axpy(1, &weights, in_, {kernels::Read::kMixed, value[1], value[0]}, &one,
                        down + rows_ * form_.in_stride, nullptr);
    }
  }

  const kernels::Table<T>& kernel_ = kernels::table<T>();
  const ConvWeights<T>& w_;
  const Form<T>& form_;
  const RelevanceJob<T>& job_;
  Index sample_, first_, rows_, in_, out_;
  const T *x_, *low_, *high_;
  Buffer<T> parts_[3];  // a-, |a|, a+
};

}  // namespace

template <class T>
void pointwise_forward(const ConvWeights<T>& w, Matrix<const T> input, Matrix<T> output, const Clamp<T>& clamp,
                       const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index in = w.source_channels(), out = w.target_channels(), stride = padded(out, kernel.tile_cols);
  PanelSet<T> panels(w.matrix(), threads.workspace);
  const std::size_t plain = panels.add(WeightMap{}, true);
  panels.pack(threads);
  const Positions work(input.rows, count(w.target()), (in + 2 * stride) * static_cast<Index>(sizeof(T)),
                       kernel.tile_rows);
  work.each(threads, [&](Index, Index sample, Index first, Index rows) {
    const Buffer<T> sums(rows * stride);
    multiply(input.row(sample) + first * in, in, rows, panels.up(plain), false, sums.data(), stride);
    kernel.finish(rows, out, sums.data(), stride, w.bias, clamp.low, clamp.high, output.row(sample) + first * out, out);
  });
}

template <class T>
void pointwise_relevance(const ConvWeights<T>& w, const LoweredRule& rule, bool reuse, const RelevanceJob<T>& job,
                         const Threads& threads) {
  const Form<T> usual(w, rule, reuse, threads.workspace);
  LoweredRule by_two;
  constexpr Index kFewTerms = 16;  // contributions of one sign only would be frequent
  const bool quick = !reuse && w.source_channels() >= kFewTerms && by_magnitude(rule, &by_two);
  std::optional<Form<T>> short_form;
  if (quick) {
    short_form.emplace(w, by_two, false, threads.workspace);
  }
  (quick ? *short_form : usual).pack(threads);
  std::once_flag late;
  const Positions work(job.batch, count(w.target()), usual.row_bytes(), kernels::table<T>().tile_rows);
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(work.tasks() * job.targets()));
  work.each(threads, [&](Index task, Index sample, Index first, Index rows) {
    kernels::Absorbed* const absorbed = &lost[static_cast<std::size_t>(task * job.targets())];
    if (quick && Piece<T>(w, *short_form, job, sample, first, rows).run(absorbed, &usual)) {
      return;
    }
    if (quick) {
      std::call_once(late, [&] { usual.pack({1, nullptr, threads.workspace}); });
    }
    Piece<T>(w, usual, job, sample, first, rows).run(absorbed, nullptr);
  });
  for (Index task = 0; task < work.tasks(); ++task) {
    for (Index t = 0; t < job.targets(); ++t) {
      add_absorbed(lost[static_cast<std::size_t>(task * job.targets() + t)],
                   &job.absorbed[t * job.batch + task / work.parts]);
    }
  }
}

template void pointwise_forward<float>(const ConvWeights<float>&, Matrix<const float>, Matrix<float>,
                                       const Clamp<float>&, const Threads&);
template void pointwise_forward<double>(const ConvWeights<double>&, Matrix<const double>, Matrix<double>,
                                        const Clamp<double>&, const Threads&);
template void pointwise_relevance<float>(const ConvWeights<float>&, const LoweredRule&, bool,
                                         const RelevanceJob<float>&, const Threads&);
template void pointwise_relevance<double>(const ConvWeights<double>&, const LoweredRule&, bool,
                                          const RelevanceJob<double>&, const Threads&);

}  // namespace pylrp
