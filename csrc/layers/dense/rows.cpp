// Few samples, or relevance that is mostly zero: one pass over the weight rows that carry relevance.
//
// A block of rows, small enough to stay in cache, gives z (dot products), then s, then adds s_j rho(W_j) to the
// accumulators: W is read from memory once. Two ways to cut the work into tasks, both fixed by the data alone: a whole
// small batch by chunks of rows (each chunk with accumulators of its own, added up in order), or, for larger batches
// with sparse relevance, sample by sample.
#include <algorithm>
#include <array>
#include <optional>

#include "kernels/dispatch.hpp"
#include "layers/dense/dense.hpp"
#include "layers/dense/row_pass.hpp"
#include "products/blocking.hpp"

namespace pylrp {
namespace {

constexpr Index kChunkBytes = Index{8} << 20;  // for the accumulators of all chunks
constexpr Index kFinishColumns = 4096;         // columns a task of the last step takes

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
  std::array<T, kMaxChunks> ones;
  ones.fill(1);
  parallel_for(slabs * samples, rest, [&](Index task) {
    const Index i = task / slabs, begin = task % slabs * kFinishColumns, end = std::min(n_in, begin + kFinishColumns);
    for (Index b = i; b < size / std::max<Index>(n_in, 1); b += samples) {
      const T* more[kMaxChunks];
      for (Index c = 1; c < chunks; ++c) {
        more[c - 1] = acc.data() + c * size + b * n_in + begin;
      }
      kernels::table<T>().rows.axpy(static_cast<int>(chunks - 1), more, end - begin, {kernels::Read::kPlain, 1, 1},
                                    ones.data(), acc.data() + b * n_in + begin, false);
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
