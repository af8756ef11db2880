// Few samples, or relevance that is mostly zero: one pass over the weight rows that carry relevance.
//
// A block of rows, small enough to stay in cache, gives z (dot products), then s, then adds s_j rho(W_j) to the
// accumulators, while the next block's dot products are computed: W is read from memory once, all the time. Two ways to
// cut the work into tasks, both fixed by the data alone: a whole small batch by chunks of rows (each chunk with
// accumulators of its own, added up in order), or, for larger batches with sparse relevance, sample by sample.
#include <algorithm>
#include <optional>
#include <type_traits>

#include "kernels/dispatch.hpp"
#include "layers/dense/dense.hpp"
#include "products/blocking.hpp"

namespace pylrp {
namespace {

// Rows of W between the dot products and their reuse: with the block that is read meanwhile, within the L2 cache. At
// least as many as go together in a kernel.
constexpr Index kBlockBytes = 128 * 1024;
constexpr Index kMinBlock = 4;
constexpr Index kMaxBlock = 64;
constexpr Index kChunkBytes = Index{8} << 20;  // for the accumulators of all chunks
constexpr Index kFinishColumns = 4096;         // columns a task of the last step takes

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

// Writes the rows with relevance in any of the samples to `rows` (n_out entries); returns how many.
template <class T>
Index active_rows(Matrix<const T> relevance, Index* rows) {
  Index count = 0;
  for (Index j = 0; j < relevance.cols; ++j) {
    for (Index i = 0; i < relevance.rows; ++i) {
      if (relevance.row(i)[j] != 0) {
        rows[count++] = j;
        break;
      }
    }
  }
  return count;
}

template <class T, class W>
void all_samples(const RowPass<T, W>& pass, const DenseJob<T>& job, const Threads& threads) {
  const Index samples = job.relevance.rows, n_in = job.layer.weight.cols;
  const Buffer<Index> active(job.relevance.cols);
  const Index count = active_rows(job.relevance, active.data());
  const Index size = pass.accumulators(samples);
  const Index fitting = kChunkBytes / std::max<Index>(1, size * Index(sizeof(T)));
  const Index chunks = std::clamp<Index>(std::min(count * n_in / kMinWeightsOfChunk, fitting), 1, kMaxChunks);
  Buffer<T> acc(size * chunks), parts(pass.parts_size(samples)), scratch(pass.scratch() * chunks);
  std::vector<kernels::Absorbed> absorbed(static_cast<std::size_t>(job.absorbed ? chunks * samples : 0));
  pass.split_input(0, samples, parts.data());
  parallel_for(chunks, threads, [&](Index c) {
    const Index begin = count * c / chunks, end = count * (c + 1) / chunks;
    std::fill(acc.data() + c * size, acc.data() + (c + 1) * size, T(0));
    pass.run(0, samples, active.data() + begin, end - begin, parts.data(), acc.data() + c * size,
             scratch.data() + c * pass.scratch(),
             job.absorbed ? &absorbed[static_cast<std::size_t>(c * samples)] : nullptr);
  });
  const Index slabs = (n_in + kFinishColumns - 1) / kFinishColumns;
  const Threads rest = threads.alone_if(chunks <= 1);
  parallel_for(slabs * samples, rest, [&](Index task) {
    const Index i = task / slabs, begin = task % slabs * kFinishColumns, end = std::min(n_in, begin + kFinishColumns);
    for (Index b = i; b < size / std::max<Index>(n_in, 1); b += samples) {
      T* const first = acc.data() + b * n_in;
      for (Index c = 1; c < chunks; ++c) {
        const T* const more = first + c * size;
        for (Index k = begin; k < end; ++k) {
          first[k] += more[k];
        }
      }
    }
    pass.finish(i, acc.data() + i * n_in, samples * n_in, begin, end);
  });
  for (std::size_t c = 0; c < absorbed.size(); ++c) {
    kernels::Absorbed& total = job.absorbed[c % static_cast<std::size_t>(samples)];
    add_absorbed(absorbed[c], &total);
  }
}

template <class T, class W>
void sample_by_sample(const RowPass<T, W>& pass, const DenseJob<T>& job, const Threads& threads) {
  const Index samples = job.relevance.rows, n_in = job.layer.weight.cols;
  const Index tasks = std::min<Index>(samples, 4 * threads.count);
  const Index size = pass.accumulators(1) + pass.parts_size(1) + pass.scratch();
  const Index n_out = job.relevance.cols;
  const Buffer<T> memory(size * tasks);
  const Buffer<Index> active(n_out * tasks);
  parallel_for(tasks, threads, [&](Index task) {
    T* const acc = memory.data() + task * size;
    T* const parts = acc + pass.accumulators(1);
    T* const scratch = parts + pass.parts_size(1);
    for (Index i = samples * task / tasks; i < samples * (task + 1) / tasks; ++i) {
      Index* const rows = active.data() + task * n_out;
      const Index count = active_rows(job.relevance.slice(i, 1), rows);
      std::fill(acc, parts, T(0));
      pass.split_input(i, 1, parts);
      pass.run(i, 1, rows, count, parts, acc, scratch, job.absorbed ? job.absorbed + i : nullptr);
      pass.finish(i, acc, n_in, 0, n_in);
    }
  });
}

}  // namespace

template <class T>
void relevance_by_rows(const DenseJob<T>& job, const Threads& threads) {
  // Without constants made beforehand only the biases are prepared: constant terms come row by row.
  GroupConstants<T> own;
  DenseJob<T> with = job;
  if (job.constants == nullptr) {
    own = prepare_biases(job.layer.bias, job.layer.weight.rows, *job.rule);
    with.constants = &own;
  }
  const auto run = [&](const auto& pass) {
    if (job.relevance.rows <= few_samples(job.layer.weight)) {
      all_samples(pass, with, threads);
    } else {
      sample_by_sample(pass, with, threads);
    }
  };
  if constexpr (std::is_same_v<T, float>) {
    if (threads.bfloat16) {
      return run(RowPass<T, kernels::Bfloat16>(with));
    }
  }
  run(RowPass<T, T>(with));
}

template void relevance_by_rows<float>(const DenseJob<float>&, const Threads&);
template void relevance_by_rows<double>(const DenseJob<double>&, const Threads&);

}  // namespace pylrp
