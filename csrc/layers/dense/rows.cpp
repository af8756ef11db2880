// Few samples, or relevance that is mostly zero: one pass over the weight rows that carry relevance.
//
// A block of rows, small enough to stay in cache, gives z (dot products), then s, then adds s_j rho(W_j) to the
// accumulators: W is read from memory once. Two ways to cut the work into tasks, both fixed by the data alone:
// a whole small batch by chunks of rows (each chunk with accumulators of its own, added up in order), or,
// for larger batches with sparse relevance, sample by sample.
#include <algorithm>

#include "kernels/dispatch.hpp"
#include "layers/dense/dense.hpp"
#include "products/blocking.hpp"

namespace pylrp {
namespace {

constexpr Index kBlockBytes = 256 * 1024;  // rows of W between the dot products and their reuse: within the L2 cache
constexpr Index kMaxBlock = 64;
constexpr Index kChunkBytes = Index{8} << 20;  // for the accumulators of all chunks
constexpr Index kFinishColumns = 4096;         // columns a task of the last step takes

template <class T>
class RowPass {
 public:
  RowPass(const DenseJob<T>& job)
      : job_(job),
        rule_(*job.rule),
        kernel_(kernels::table<T>()),
        n_in_(job.layer.weight.cols),
        block_(std::clamp<Index>(kBlockBytes / (std::max<Index>(n_in_, 1) * Index(sizeof(T))), 1, kMaxBlock)),
        sums_(Index(rule_.sums.size())),
        groups_(Index(rule_.groups.size())),
        backs_(Index(rule_.back.size())),
        reuse_output_(output_is_sum(job)) {}

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
    T* const z = scratch;                     // (sums, block)
    T* const s = z + block_ * sums_;          // (groups, block)
    T* const base = s + block_ * groups_;     // (groups, block)
    T* const bias = base + block_ * groups_;  // (groups, block)
    T* const r = bias + block_ * groups_;     // (block)
    T* const plain_bias = r + block_;         // (block)
    const T* rows[kMaxBlock];
    const T* next[kMaxBlock];
    const T* base_of[kernels::kMaxGroups] = {};
    const T* bias_of[kernels::kMaxGroups] = {};
    T* z_of[kernels::kMaxSums] = {};
    T* s_of[kernels::kMaxGroups] = {};
    for (Index q = 0; q < sums_; ++q) {
      z_of[q] = z + q * block_;
    }
    for (Index g = 0; g < groups_; ++g) {
      s_of[g] = s + g * block_;
    }
    const T* const layer_bias = job_.layer.bias;
    for (Index done = 0; done < count; done += block_) {
      const Index n = std::min(block_, count - done);
      const Index* const index = active + done;
      for (Index j = 0; j < n; ++j) {
        rows[j] = job_.layer.weight.row(index[j]);
        // The same row again behind the last block: already in cache, harmless.
        next[j] = job_.layer.weight.row(done + block_ + j < count ? index[block_ + j] : index[j]);
      }
      const T* const* ahead = next;  // asked for once, in the first product with this block
      for (Index g = 0; g < groups_; ++g) {
        constants(static_cast<std::size_t>(g), rows, index, n, base + g * block_, bias + g * block_, &base_of[g],
                  &bias_of[g], g == 0 ? ahead : nullptr);
      }
      const bool plain = rule_.masked && layer_bias != nullptr && !reuse_output_;
      for (Index j = 0; plain && j < n; ++j) {
        plain_bias[j] = layer_bias[index[j]];
      }
      const kernels::Shares<T> plan = shares_of<T>(rule_, base_of, bias_of, plain ? plain_bias : nullptr);
      for (Index i = 0; i < samples; ++i) {
        const T* relevance = job_.relevance.row(first + i);
        for (Index j = 0; j < n; ++j) {
          r[j] = relevance[index[j]];
        }
        for (Index q = 0; q < sums_; ++q) {
          products(static_cast<std::size_t>(q), rows, index, n, first, samples, i, parts, z_of[q],
                   i == 0 && q == 0 ? ahead : nullptr);
        }
        kernel_.shares({.rows = 1,
                        .cols = n,
                        .rule = plan,
                        .z = z_of,
                        .z_stride = block_,
                        .r = r,
                        .r_stride = block_,
                        .s = s_of,
                        .s_stride = block_,
                        .ledger = absorbed ? absorbed + i : nullptr,
                        .ledger_step = 1});
        for (Index b = 0; b < backs_; ++b) {
          const BackProduct& back = rule_.back[static_cast<std::size_t>(b)];
          kernel_.rows_axpy(static_cast<int>(n), rows, n_in_, weights_of<T>(back.map), s_of[back.group],
                            acc + (b * samples + i) * n_in_, i == 0 && b == 0 ? ahead : nullptr);
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

  // rho_b(b) and the constant terms of a block of rows.
  void constants(std::size_t g, const T* const* rows, const Index* index, Index n, T* base, T* bias, const T** base_of,
                 const T** bias_of, const T* const* ahead) const {
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
    T z[kMaxBlock];
    for (const Term& term : group.constants) {
      std::fill(z, z + n, T(0));
      kernel_.rows_dot(static_cast<int>(n), rows, n_in_, weights_of<T>(term.map),
                       constant_input(term.part, job_.bounds), z, ahead);
      for (Index j = 0; j < n; ++j) {
        base[j] += static_cast<T>(term.sign) * z[j];
      }
    }
  }

  void products(std::size_t q, const T* const* rows, const Index* index, Index n, Index first, Index samples, Index i,
                const T* parts, T* z, const T* const* ahead) const {
    if (reuse_output_) {
      for (Index j = 0; j < n; ++j) {
        z[j] = job_.output.row(first + i)[index[j]];
      }
      return;
    }
    std::fill(z, z + n, T(0));
    for (const ProductTerm& tap : rule_.sums[q]) {
      const T* x = job_.input.row(first + i);
      if (tap.part != Part::kInput) {
        x = parts + ((tap.part == Part::kNegative ? samples : 0) + i) * n_in_;
      }
      kernel_.rows_dot(static_cast<int>(n), rows, n_in_, weights_of<T>(tap.map), x, z, ahead);
    }
  }

  const DenseJob<T>& job_;
  const LoweredRule& rule_;
  const kernels::Table<T>& kernel_;
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

template <class T>
void all_samples(const RowPass<T>& pass, const DenseJob<T>& job, const Threads& threads) {
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

template <class T>
void sample_by_sample(const RowPass<T>& pass, const DenseJob<T>& job, const Threads& threads) {
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
  const RowPass<T> pass(with);
  if (job.relevance.rows <= few_samples(job.layer.weight)) {
    all_samples(pass, with, threads);
  } else {
    sample_by_sample(pass, with, threads);
  }
}

template void relevance_by_rows<float>(const DenseJob<float>&, const Threads&);
template void relevance_by_rows<double>(const DenseJob<double>&, const Threads&);

}  // namespace pylrp
