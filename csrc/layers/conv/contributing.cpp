#include "layers/conv/contributing.hpp"

#include <algorithm>

#include "kernels/dispatch.hpp"

namespace pylrp {
namespace {

constexpr Index kWeightBytes = Index{48} << 10;  // of a block of outputs, whose weights stay in the cache

Index lanes() { return kernels::table<float>().tile_cols / 2; }

void combine(const OfContribution& f, float* coef) {
  coef[0] = static_cast<float>(f.above);
  coef[1] = static_cast<float>(f.below);
}

}  // namespace

bool is_apart(const ByContribution& made, const LoweredRule& rule) {
  return made.denominators.size() > 1 || rule.masked || !(made.denominators[0] == made.sent[0]);
}

TargetRows rows_of(const RelevanceJob<float>& job, Index target, Index targets, Index sample, Index at) {
  const Matrix<const float>& relevance = job.relevance;
  return {relevance.row(target * job.batch + sample) + at, job.batch * relevance.stride, targets};
}

// --- what all tasks read ---

Contributing::Contributing(const ConvCall<float>& call, bool padded)
    : constants(call.weights, call.rule, false), shares(constants.args), rule(call.form.contributions->rule) {
  const OfContribution& f = rule.denominators[0];
  apart = is_apart(rule, call.rule);
  plain = apart ? 0.0F : static_cast<float>(f.below);
  extra = apart ? 0.0F : static_cast<float>(f.above - f.below);
  const ConvWeights<float>& w = call.weights;
  in = w.row_size();
  out = w.target_channels();
  stride = (in + lanes() - 1) / lanes() * lanes();
  row = padded ? stride : in;
  weights = w.weight;
  if (stride != in) {
    own_weights.reset(out * stride);
    pad(w.weight, out, own_weights.data());
    weights = own_weights.data();
  }
  const Index fitting = std::clamp<Index>(kWeightBytes / (stride * Index{sizeof(float)}), 1, out);
  blocks = (out + fitting - 1) / fitting;
  most = (out + blocks - 1) / blocks;
  shares.sums = apart ? 2 : 1;
  for (std::size_t g = 0; g < rule.denominators.size(); ++g) {
    combine(apart ? rule.denominators[g] : OfContribution{1, 0}, shares.group[g].coef);
  }
  combine(rule.plain, shares.plain);
}

void Contributing::pad(const float* from, Index rows, float* to) const {
  for (Index i = 0; i < rows; ++i) {
    std::fill(std::copy_n(from + i * in, in, to + i * stride), to + (i + 1) * stride, 0.0F);
  }
}

// An entry of a list takes its step, two sums and two constants, and the shares of each target.
Index Contributing::row_bytes(Index targets) const {
  const Index entry = 2 + (4 + (apart ? 2 : 1) * targets) * Index{sizeof(float)};
  return most * entry + (stride + targets * (stride + out)) * Index{sizeof(float)};
}

// --- some positions ---

ContributingBlock::ContributingBlock(const Contributing& of, Index rows, Index targets)
    : of_(of),
      rows_(rows),
      targets_(targets),
      size_(rows * of.most + kernels::kSpare),
      own_inputs_(of.stride == of.row ? 0 : rows * of.stride),
      own_sent_back_(sends_at_once() ? 0 : targets * rows * of.stride),
      memory_((4 + (of.apart ? 2 : 1) * targets) * size_),
      steps_(size_),
      begins_(static_cast<std::size_t>(rows + 1)) {
  float* at = memory_.data();
  for (float** entries : {&sums_[0], &sums_[1], &biases_[0], &biases_[1], &shares_[0]}) {
    *entries = at;
    at += size_;
  }
  shares_[1] = shares_[0] + (of.apart ? targets * size_ : 0);
}

void ContributingBlock::read(const float* x) {
  inputs_ = x;
  if (of_.stride != of_.row) {
    of_.pad(x, rows_, own_inputs_.data());
    inputs_ = own_inputs_.data();
  }
}

void ContributingBlock::run(const TargetRows& relevance, float* out, Index out_step, kernels::Absorbed* lost) {
  sent_back_ = sends_at_once() ? out : own_sent_back_.data();
  sent_step_ = sends_at_once() ? out_step : rows_ * of_.stride;
  for (Index block = 0; block < of_.blocks; ++block) {
    const Index first = of_.out * block / of_.blocks;
    make_lists(relevance, first, of_.out * (block + 1) / of_.blocks - first);
    make_sums(first);
    make_shares(first, lost);
    each_part(first, [&](const kernels::Contributions& part, Index column) { send(part, column, block > 0); });
  }
  for (Index i = 0; !sends_at_once() && i < targets_ * rows_; ++i) {
    std::copy_n(sent_back_ + i * of_.stride, of_.in, out + i / rows_ * out_step + i % rows_ * of_.row);
  }
}

// The relevance of the entries, which shares will take the place of.
void ContributingBlock::make_lists(const TargetRows& relevance, Index first, Index outputs) {
  count_ = 0;
  for (Index i = 0; i < rows_; ++i) {
    begins_[static_cast<std::size_t>(i)] = count_;
    const float* const row = relevance.first + i * of_.out + first;
    count_ += targets_ == 1
                  ? kernels::table<float>().compress(outputs, row, 0, 0, shares_[0] + count_, steps_.data() + count_)
                  : kernels::contributions()->compress_targets(outputs, static_cast<int>(targets_), row, relevance.step,
                                                               shares_[0] + count_, size_, steps_.data() + count_);
  }
  begins_[static_cast<std::size_t>(rows_)] = count_;
  std::fill_n(steps_.data() + count_, kernels::kSpare, std::uint16_t{0});
}

void ContributingBlock::send(const kernels::Contributions& part, Index column, bool add) const {
  float* const out = sent_back_ + column;
  if (!of_.apart) {
    kernels::contributions()->send_targets(part, static_cast<int>(targets_), shares_[0], size_, add, out, sent_step_);
    return;
  }
  for (Index t = 0; t < targets_; ++t) {
    kernels::contributions()->send(part, shares_[0] + t * size_, shares_[1] + t * size_, add, out + t * sent_step_);
  }
}

// With the columns that the kernels take at once.
template <class Body>
void ContributingBlock::each_part(Index first, Body body) const {
  const Index most = kernels::contributions()->columns, parts = (of_.in + most - 1) / most;
  const Index width = (of_.stride / lanes() + parts - 1) / parts * lanes();
  for (Index column = 0; column < of_.in; column += width) {
    body(kernels::Contributions{.rows = rows_,
                                .begins = begins_.data(),
                                .at = steps_.data(),
                                .w = of_.weights + first * of_.stride + column,
                                .x = inputs_ + column,
                                .stride = of_.stride,
                                .columns = std::min(width, of_.in - column),
                                .plain = of_.plain,
                                .extra = of_.extra},
         column);
  }
}

void ContributingBlock::make_sums(Index first) {
  each_part(first, [&](const kernels::Contributions& part, Index column) {
    if (column == 0) {
      return kernels::contributions()->sum(part, sums_[0], of_.apart ? sums_[1] : nullptr);
    }
    more_.reset(2 * size_);
    float* const more[] = {more_.data(), more_.data() + size_};
    kernels::contributions()->sum(part, more[0], of_.apart ? more[1] : nullptr);
    for (int side = 0; side < (of_.apart ? 2 : 1); ++side) {
      for (Index e = 0; e < count_; ++e) {
        sums_[side][e] += more[side][e];
      }
    }
  });
}

// Of each entry what the denominators hold at its output, `first` further than its step; null stays null.
const float* ContributingBlock::at_entries(const float* of_outputs, Index first, float* to) const {
  if (of_outputs == nullptr) {
    return nullptr;
  }
  for (Index e = 0; e < count_; ++e) {
    to[e] = of_outputs[first + steps_.data()[e]];
  }
  return to;
}

void ContributingBlock::make_shares(Index first, kernels::Absorbed* lost) {
  kernels::Shares<float> shares = of_.shares;
  // Without constant terms, which no rule by contributions has, what is beside the sums is the bias.
  for (int g = 0; g < shares.groups; ++g) {
    shares.group[g].base = shares.group[g].bias = at_entries(shares.group[g].bias, first, biases_[g]);
  }
  Buffer<float> plain(shares.masked && shares.plain_base ? size_ : 0);
  shares.plain_base = shares.masked ? at_entries(shares.plain_base, first, plain.data()) : nullptr;
  for (Index t = 0; t < targets_; ++t) {
    float* const s[] = {shares_[0] + t * size_, shares_[1] + t * size_};
    kernels::table<float>().shares({.rows = 1,
                                    .cols = count_,
                                    .rule = shares,
                                    .z = sums_,
                                    .z_stride = count_,
                                    .r = s[0],
                                    .r_stride = count_,
                                    .s = s,
                                    .s_stride = count_,
                                    .ledger = lost + t,
                                    .ledger_step = 0});
    weigh(s);
  }
}

// From the shares of the groups to what contributions above and below zero are multiplied with.
void ContributingBlock::weigh(float* const* shares) const {
  const std::vector<OfContribution>& f = of_.rule.sent;
  if (!of_.apart || (f[0] == OfContribution{1, 0} && f.size() > 1 && f[1] == OfContribution{0, 1})) {
    return;
  }
  float factors[2][2] = {};  // [side][group]
  for (std::size_t g = 0; g < f.size(); ++g) {
    factors[0][g] = static_cast<float>(f[g].above);
    factors[1][g] = static_cast<float>(f[g].below);
  }
  const float* const s = shares[0];
  const float* const t = f.size() > 1 ? shares[1] : s;
  for (Index e = 0; e < count_; ++e) {
    const float a = s[e], b = t[e];
    shares[0][e] = factors[0][0] * a + factors[0][1] * b;
    shares[1][e] = factors[1][0] * a + factors[1][1] * b;
  }
}

}  // namespace pylrp
