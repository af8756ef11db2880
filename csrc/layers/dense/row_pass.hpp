// What relevance by rows of weights (rows.cpp) does with some rows and some samples: sums, shares, and what they send
// back, in one pass over the weights.
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include "kernels/dispatch.hpp"
#include "layers/dense/dense.hpp"

namespace pylrp {

// Rows of W between the dot products and their reuse, within the L2 cache.
inline constexpr Index kBlockBytes = 416 * 1024;
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
        reuse_output_(output_is_sum(job)),
        joins_squares_(squares_alone()) {}

  Index accumulators(Index samples) const { return backs_ * samples * n_in_; }
  Index scratch() const { return block_ * (sums_ + 3 * groups_ + 2); }
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
    const Buffer<W> made(std::is_same_v<W, T> ? 0 : block_ * half_.row_size());
    T squares[kMaxBlock];
    bool known = false;
    for (Index done = 0; done < count; done += block_) {
      Block block{active + done, std::min(block_, count - done)};
      pick(made.data(), &block);
      block.squares = std::exchange(known, false) ? squares : nullptr;
      const kernels::Shares<T> plan = denominators(at, &block);
      for (Index i = 0; i < samples; ++i) {
        shares(at, &block, batch, i, plan, absorbed ? absorbed + i : nullptr);
        if (joins_squares_ && samples == 1 && done + 2 * block_ <= count) {
          Block next{active + done + block_, block_};
          pick(made.data(), &next);
          add_squares(block, next, at.s_of[0], acc, squares);
          known = true;
          continue;
        }
        for (Index b = 0; b < backs_; ++b) {
          const BackProduct& back = rule_.back[static_cast<std::size_t>(b)];
          products_.axpy(static_cast<int>(block.n), block.rows, n_in_, weights_of<T>(back.map), at.s_of[back.group],
                         acc + (b * samples + i) * n_in_, std::exchange(block.cold, false));
        }
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
  // Some rows with relevance, and whether they still have to come out of memory.
  struct Block {
    const Index* index;
    Index n;
    bool cold = true;
    const T* squares = nullptr;  // the sums of the rows' squares, where they are known
    const W* rows[kMaxBlock] = {};
  };
  // A run's work arrays, one entry a row of the block.
  struct BlockArrays {
    T *base, *bias, *r, *plain_bias;  // base and bias: (groups, block)
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
    }
  };

  // w^2, of rows that are kept in bfloat16: a block is added while the next one's squares are summed.
  bool squares_alone() const {
    if constexpr (std::is_same_v<W, T>) {
      return false;
    } else {
      const auto is_square = [](const WeightMap& map) { return weights_of<T>(map).read == kernels::Read::kSquare; };
      return kernels::bfloat16_table().add_squares && job_.layer.half && block_ % kernels::kSquaredRows == 0 &&
             sums_ == 0 && groups_ == 1 && backs_ == 1 && is_square(rule_.back[0].map) &&
             rule_.groups[0].constants.size() == 1 && is_square(rule_.groups[0].constants[0].map) &&
             constant_input(rule_.groups[0].constants[0].part, job_.bounds) == nullptr &&
             job_.constants->groups[0].base.data() == nullptr;
    }
  }
  void add_squares(const Block& block, const Block& next, const T* s, T* c, T* squares) const {
    if constexpr (!std::is_same_v<W, T>) {
      std::fill_n(squares, block_, T(0));
      for (Index r = 0; r < block_; r += kernels::kSquaredRows) {
        kernels::bfloat16_table().add_squares(block.rows + r, next.rows + r, n_in_, s + r, c, squares + r);
      }
    }
  }

  // made: where rows in bfloat16 go that are not kept.
  void pick(W* made, Block* block) const {
    for (Index j = 0; j < block->n; ++j) {
      if constexpr (std::is_same_v<W, T>) {
        block->rows[j] = job_.layer.weight.row(block->index[j]);
      } else {
        block->rows[j] = half_.row(block->index[j], made + j * half_.row_size());
      }
    }
  }
  void dot(Block* block, const WeightMap& map, const T* x, T* z) const {
    products_.dot(static_cast<int>(block->n), block->rows, n_in_, weights_of<T>(map), x, z,
                  std::exchange(block->cold, false));
  }

  const T* input_of(const ProductTerm& tap, const Batch& batch, Index i) const {
    if (tap.part == Part::kInput) {
      return job_.input.row(batch.first + i);
    }
    return batch.parts + ((tap.part == Part::kNegative ? batch.samples : 0) + i) * n_in_;
  }
  // The shares' rule with what the denominators of a block of rows hold besides sums over the input.
  kernels::Shares<T> denominators(const BlockArrays& at, Block* block) const {
    const T* base[kernels::kMaxGroups] = {};
    const T* bias[kernels::kMaxGroups] = {};
    for (std::size_t g = 0; g < rule_.groups.size(); ++g) {
      const Index row = static_cast<Index>(g) * block_;
      constants(g, block, at.base + row, at.bias + row, &base[g], &bias[g]);
    }
    const T* const layer_bias = job_.layer.bias;
    const bool plain = rule_.masked && layer_bias != nullptr && !reuse_output_;
    for (Index j = 0; plain && j < block->n; ++j) {
      at.plain_bias[j] = layer_bias[block->index[j]];
    }
    return shares_of<T>(rule_, base, bias, plain ? at.plain_bias : nullptr);
  }

  // rho_b(b) and the constant terms of a group.
  void constants(std::size_t g, Block* block, T* base, T* bias, const T** base_of, const T** bias_of) const {
    const Denominator& group = rule_.groups[g];
    const auto& made = job_.constants->groups[g];
    const T* const made_bias = made.bias.data();
    const Index n = block->n;
    *bias_of = made_bias ? bias : nullptr;
    for (Index j = 0; j < n; ++j) {
      bias[j] = made_bias ? made_bias[block->index[j]] : T(0);
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
        base[j] = made.base.data()[block->index[j]];
      }
      return;
    }
    std::copy(bias, bias + n, base);
    T z[kMaxBlock];
    for (const Term& term : group.constants) {
      std::fill_n(z, n, T(0));
      if (block->squares) {
        std::copy_n(block->squares, n, z);
      } else {
        dot(block, term.map, constant_input(term.part, job_.bounds), z);
      }
      for (Index j = 0; j < n; ++j) {
        base[j] += static_cast<T>(term.sign) * z[j];
      }
    }
  }

  // s of a sample for a block of rows.
  void shares(const BlockArrays& at, Block* block, const Batch& batch, Index i, const kernels::Shares<T>& plan,
              kernels::Absorbed* absorbed) const {
    const T* const relevance = job_.relevance.row(batch.first + i);
    for (Index j = 0; j < block->n; ++j) {
      at.r[j] = relevance[block->index[j]];
    }
    for (Index q = 0; q < sums_; ++q) {
      sum(static_cast<std::size_t>(q), block, batch, i, at.z_of[q]);
    }
    kernel_.shares({.rows = 1,
                    .cols = block->n,
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
  void sum(std::size_t q, Block* block, const Batch& batch, Index i, T* z) const {
    if (reuse_output_) {
      for (Index j = 0; j < block->n; ++j) {
        z[j] = job_.output.row(batch.first + i)[block->index[j]];
      }
      return;
    }
    std::fill_n(z, block->n, T(0));
    for (const ProductTerm& tap : rule_.sums[q]) {
      dot(block, tap.map, input_of(tap, batch, i), z);
    }
  }

  const DenseJob<T>& job_;
  const LoweredRule& rule_;
  const kernels::Table<T>& kernel_;
  const kernels::RowProducts<T, W>& products_;
  const HalfRows<T> half_;
  Index n_in_, block_, sums_, groups_, backs_;
  bool reuse_output_, joins_squares_;
};

}  // namespace pylrp
