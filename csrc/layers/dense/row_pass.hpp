// What relevance by rows of weights (rows.cpp) does with some rows and some samples: sums, shares, and what they send
// back, in one pass over the weights.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels/dispatch.hpp"
#include "layers/dense/dense.hpp"

namespace pylrp {

// Rows of W between the dot products and their reuse: with the block that is read meanwhile, within the L2 cache. At
// least as many as go together in a kernel.
inline constexpr Index kBlockBytes = 128 * 1024;
inline constexpr Index kMinBlock = 4;
inline constexpr Index kMaxBlock = 64;

// W: how a row is read, T itself or bfloat16.
template <class T, class W>
class RowPass {
 public:
  RowPass(const DenseJob<T>& job)
      : job_(job),
        rule_(*job.rule),
        kernel_(kernels::table<T>()),
        products_(kernels::row_products<T, W>()),
        half_(job.layer),
        n_in_(job.layer.weight.cols),
        block_(std::clamp<Index>(kBlockBytes / (std::max<Index>(n_in_, 1) * Index(sizeof(W))), kMinBlock, kMaxBlock) /
               kMinBlock * kMinBlock),
        sums_(Index(rule_.sums.size())),
        groups_(Index(rule_.groups.size())),
        backs_(Index(rule_.back.size())),
        reuse_output_(output_is_sum(job)) {}

  Index accumulators(Index samples) const { return backs_ * samples * n_in_; }
  Index scratch() const { return block_ * (sums_ + 3 * groups_ + 3); }
  Index parts_size(Index samples) const { return split() ? 2 * samples * n_in_ : 0; }

  // a+ and a-, made once for all rows: parts(2, samples, n_in).
  void split_input(Index first, Index samples, T* parts) const {
    if (!split()) {
      return;
    }
    for (Index i = 0; i < samples; ++i) {
      const T* a = job_.input.row(first + i);
      T* pos = parts + i * n_in_;
      T* neg = pos + samples * n_in_;
      for (Index k = 0; k < n_in_; ++k) {
        pos[k] = a[k] < 0 ? T(0) : a[k];
        neg[k] = a[k] > 0 ? T(0) : a[k];
      }
    }
  }

  // Adds the weight rows `active[0..count)` to acc(backs, samples, n_in).
  void run(Index first, Index samples, const Index* active, Index count, const T* parts, T* acc, T* scratch,
           kernels::Absorbed* absorbed) const {
    const Batch batch{first, samples, parts};
    const BlockArrays at(*this, scratch);
    const W* rows[2][kMaxBlock];
    const std::optional<FirstProduct> ahead = first_product(batch);
    const bool joined = ahead && backs_ > 0 && ahead->map == rule_.back.back().map;
    const Buffer<W> made(std::is_same_v<W, T> ? 0 : 2 * block_ * half_.row_size());
    pick(active, std::min(block_, count), made.data(), rows[0]);
    if (ahead) {
      dot(rows[0], std::min(block_, count), ahead->map, ahead->x, at.ahead);
    }
    for (Index done = 0, block = 0; done < count; done += block_, ++block) {
      const Index n = std::min(block_, count - done), next = std::min(block_, count - done - n);
      const W* const* const now = rows[block % 2];
      const W** const then = rows[(block + 1) % 2];
      pick(active + done + n, next, made.data() + (block + 1) % 2 * block_ * half_.row_size(), then);
      const kernels::Shares<T> plan = denominators(at, now, active + done, n, ahead);
      for (Index i = 0; i < samples; ++i) {
        shares(at, now, active + done, n, batch, i, i == 0 ? ahead : std::nullopt, plan,
               absorbed ? absorbed + i : nullptr);
        for (Index b = 0; b < backs_; ++b) {
          const BackProduct& back = rule_.back[static_cast<std::size_t>(b)];
          const T* const s = at.s_of[back.group];
          T* const to = acc + (b * samples + i) * n_in_;
          if (!joined || i + 1 < samples || b + 1 < backs_) {
            products_.axpy(static_cast<int>(n), now, n_in_, weights_of<T>(back.map), s, to);
            continue;
          }
          std::fill_n(at.ahead, next, T(0));
          products_.step({static_cast<int>(n), now, s, to, static_cast<int>(next), then, ahead->x, at.ahead, n_in_,
                          weights_of<T>(back.map)});
        }
      }
      if (ahead && !joined) {
        dot(then, next, ahead->map, ahead->x, at.ahead);
      }
    }
  }

  // result = sum over products of mix(input) * acc, for columns [begin, end) of one sample.
  void finish(Index sample, const T* acc, Index acc_stride, Index begin, Index end) const {
    const T* a = job_.input ? job_.input.row(sample) + begin : nullptr;
    const T* low = job_.bounds.low ? job_.bounds.low + begin : nullptr;
    const T* high = job_.bounds.high ? job_.bounds.high + begin : nullptr;
    T* const out = job_.result.row(sample) + begin;
    kernels::Mixed<T> mixed = mixed_of<T>(rule_);
    for (Index b = 0; b < backs_; ++b) {
      mixed.acc[b] = acc + b * acc_stride + begin;
    }
    kernel_.accumulate({.rows = 1,
                        .cols = end - begin,
                        .mixed = mixed,
                        .acc_stride = 0,
                        .a = a,
                        .a_stride = 0,
                        .low = low,
                        .high = high,
                        .bound_stride = 0,
                        .add = false,
                        .out = out,
                        .out_stride = 0});
  }

 private:
  bool split() const { return rule_.reads(Part::kPositive) || rule_.reads(Part::kNegative); }

  // The samples of a run; a+ and a- of them.
  struct Batch {
    Index first, samples;
    const T* parts;
  };
  // The product that a block of rows begins with: of a group's constant term, or of the first sum.
  struct FirstProduct {
    WeightMap map;
    const T* x;
    std::size_t group;
    bool constant;
  };
  // A run's work arrays, one entry a row of the block.
  struct BlockArrays {
    T *base, *bias, *r, *plain_bias, *ahead;  // base and bias: (groups, block)
    T* z_of[kernels::kMaxSums] = {};
    T* s_of[kernels::kMaxGroups] = {};
    BlockArrays(const RowPass& pass, T* scratch) {
      const Index block = pass.block_;
      for (Index q = 0; q < pass.sums_; ++q, scratch += block) {
        z_of[q] = scratch;
      }
      for (Index g = 0; g < pass.groups_; ++g, scratch += block) {
        s_of[g] = scratch;
      }
      base = scratch;
      bias = base + block * pass.groups_;
      r = bias + block * pass.groups_;
      plain_bias = r + block;
      ahead = plain_bias + block;
    }
  };

  // made: where rows in bfloat16 go that are not kept.
  void pick(const Index* index, Index n, W* made, const W** rows) const {
    for (Index j = 0; j < n; ++j) {
      if constexpr (std::is_same_v<W, T>) {
        rows[j] = job_.layer.weight.row(index[j]);
      } else {
        rows[j] = half_.row(index[j], made + j * half_.row_size());
      }
    }
  }
  void dot(const W* const* rows, Index n, const WeightMap& map, const T* x, T* z) const {
    std::fill_n(z, n, T(0));
    products_.dot(static_cast<int>(n), rows, n_in_, weights_of<T>(map), x, z);
  }

  const T* input_of(const ProductTerm& tap, const Batch& batch, Index i) const {
    if (tap.part == Part::kInput) {
      return job_.input.row(batch.first + i);
    }
    return batch.parts + ((tap.part == Part::kNegative ? batch.samples : 0) + i) * n_in_;
  }
  std::optional<FirstProduct> first_product(const Batch& batch) const {
    if (reuse_output_) {
      return std::nullopt;
    }
    for (std::size_t g = 0; g < rule_.groups.size(); ++g) {
      const auto& constants = rule_.groups[g].constants;
      if (!constants.empty() && job_.constants->groups[g].base.data() == nullptr) {
        return FirstProduct{constants[0].map, constant_input(constants[0].part, job_.bounds), g, true};
      }
    }
    if (rule_.sums.empty() || rule_.sums[0].empty()) {
      return std::nullopt;
    }
    return FirstProduct{rule_.sums[0][0].map, input_of(rule_.sums[0][0], batch, 0), 0, false};
  }

  // The shares' rule with what the denominators of a block of rows hold besides sums over the input.
  kernels::Shares<T> denominators(const BlockArrays& at, const W* const* rows, const Index* index, Index n,
                                  const std::optional<FirstProduct>& ahead) const {
    const T* base[kernels::kMaxGroups] = {};
    const T* bias[kernels::kMaxGroups] = {};
    for (std::size_t g = 0; g < rule_.groups.size(); ++g) {
      const Index row = static_cast<Index>(g) * block_;
      constants(g, rows, index, n, ahead && ahead->constant && ahead->group == g ? at.ahead : nullptr, at.base + row,
                at.bias + row, &base[g], &bias[g]);
    }
    const T* const layer_bias = job_.layer.bias;
    const bool plain = rule_.masked && layer_bias != nullptr && !reuse_output_;
    for (Index j = 0; plain && j < n; ++j) {
      at.plain_bias[j] = layer_bias[index[j]];
    }
    return shares_of<T>(rule_, base, bias, plain ? at.plain_bias : nullptr);
  }

  // rho_b(b) and the constant terms of a group; first: the product of its first term, if it was computed before.
  void constants(std::size_t g, const W* const* rows, const Index* index, Index n, const T* first, T* base, T* bias,
                 const T** base_of, const T** bias_of) const {
    const Denominator& group = rule_.groups[g];
    const auto& made = job_.constants->groups[g];
    const T* const made_bias = made.bias.data();
    *bias_of = made_bias ? bias : nullptr;
    for (Index j = 0; j < n; ++j) {
      bias[j] = made_bias ? made_bias[index[j]] : T(0);
    }
    if (reuse_output_) {  // z of the forward pass holds the bias already
      *base_of = nullptr;
      return;
    }
    *base_of = *bias_of;
    if (group.constants.empty()) {
      return;
    }
    *base_of = base;
    if (made.base.data() != nullptr) {
      for (Index j = 0; j < n; ++j) {
        base[j] = made.base.data()[index[j]];
      }
      return;
    }
    std::copy(bias, bias + n, base);
    T own[kMaxBlock];
    for (const Term& term : group.constants) {
      const T* const z = first != nullptr ? first : own;
      if (first == nullptr) {
        dot(rows, n, term.map, constant_input(term.part, job_.bounds), own);
      }
      first = nullptr;
      for (Index j = 0; j < n; ++j) {
        base[j] += static_cast<T>(term.sign) * z[j];
      }
    }
  }

  // s of a sample for a block of rows.
  void shares(const BlockArrays& at, const W* const* rows, const Index* index, Index n, const Batch& batch, Index i,
              const std::optional<FirstProduct>& ahead, const kernels::Shares<T>& plan,
              kernels::Absorbed* absorbed) const {
    const T* const relevance = job_.relevance.row(batch.first + i);
    for (Index j = 0; j < n; ++j) {
      at.r[j] = relevance[index[j]];
    }
    for (Index q = 0; q < sums_; ++q) {
      const bool begun = q == 0 && ahead && !ahead->constant;
      sum(static_cast<std::size_t>(q), rows, index, n, batch, i, begun ? at.ahead : nullptr, at.z_of[q]);
    }
    kernel_.shares({.rows = 1,
                    .cols = n,
                    .rule = plan,
                    .z = at.z_of,
                    .z_stride = block_,
                    .r = at.r,
                    .r_stride = block_,
                    .s = at.s_of,
                    .s_stride = block_,
                    .ledger = absorbed,
                    .ledger_step = 1});
  }
  // first: the product of its first term, if it was computed before.
  void sum(std::size_t q, const W* const* rows, const Index* index, Index n, const Batch& batch, Index i,
           const T* first, T* z) const {
    if (reuse_output_) {
      for (Index j = 0; j < n; ++j) {
        z[j] = job_.output.row(batch.first + i)[index[j]];
      }
      return;
    }
    std::fill_n(z, n, T(0));
    for (const ProductTerm& tap : rule_.sums[q]) {
      if (first != nullptr) {
        std::copy_n(first, n, z);
        first = nullptr;
      } else {
        products_.dot(static_cast<int>(n), rows, n_in_, weights_of<T>(tap.map), input_of(tap, batch, i), z);
      }
    }
  }

  const DenseJob<T>& job_;
  const LoweredRule& rule_;
  const kernels::Table<T>& kernel_;
  const kernels::RowProducts<T, W>& products_;
  const HalfRows<T> half_;
  Index n_in_, block_, sums_, groups_, backs_;
  bool reuse_output_;
};

}  // namespace pylrp
