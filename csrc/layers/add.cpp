#include "layers/add.hpp"

#include <algorithm>

#include "base/buffer.hpp"
#include "base/pieces.hpp"
#include "kernels/dispatch.hpp"
#include "layers/registry.hpp"
#include "rules/kernel_args.hpp"
#include "rules/stabilizer.hpp"

namespace pylrp {

template <class T>
void AddLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_fit(std::all_of(inputs.begin(), inputs.end(), [&](Index size) { return size == output; }),
              "summands and their sum");
}

template <class T>
void AddLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
                          const Threads& threads) const {
  each_piece(output.rows, output.cols, threads, [&](Index, Index row, Index first, Index count) {
    T* const out = output.row(row) + first;
    const T* sum = inputs[0].row(row) + first;
    const std::size_t last = inputs.size() - 1;
    for (std::size_t k = std::min<std::size_t>(1, last); k <= last; ++k) {  // a summand is what finish() calls a bias
      const Clamp<T> limits = k == last ? clamp : Clamp<T>{};
      kernels::table<T>().finish({.rows = 1,
                                  .cols = count,
                                  .acc = sum,
                                  .acc_stride = count,
                                  .bias = k > 0 ? inputs[k].row(row) + first : nullptr,
                                  .low = limits.low,
                                  .high = limits.high,
                                  .out = out,
                                  .out_stride = count});
      sum = out;
    }
  });
}

template <class T>
void AddLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Stabilizer<T> stabilizer(job.rule);
  // The kernel adds up a few terms itself; of more, the first are added before.
  const std::size_t together = std::min<std::size_t>(job.inputs.size(), kernels::kMaxSums);
  const kernels::Shares<T> plan = stabilizer.of_sum(static_cast<int>(together));
  const Index pieces = pieces_of(job.relevance.cols);
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(job.relevance.rows * pieces));
  each_piece(job.relevance.rows, job.relevance.cols, threads, [&](Index task, Index row, Index first, Index count) {
    const Index sample = row % job.batch;
    const auto x = [&](std::size_t k) { return job.inputs[k].row(sample) + first; };
    const Buffer<T> memory(2 * count);
    T* const share = memory.data();
    T* const sum = memory.data() + count;
    const T* terms[kernels::kMaxSums] = {};
    for (std::size_t k = 0; k < together; ++k) {
      terms[k] = x(k);
    }
    if (together < job.inputs.size()) {
      std::copy_n(x(0), count, sum);
      for (std::size_t k = together; k < job.inputs.size(); ++k) {
        for (Index j = 0; j < count; ++j) {
          sum[j] += x(k)[j];
        }
      }
      terms[0] = sum;
    }
    kernel.shares({.rows = 1,
                   .cols = count,
                   .rule = plan,
                   .z = terms,
                   .z_stride = count,
                   .r = job.relevance.row(row) + first,
                   .r_stride = count,
                   .s = &share,
                   .s_stride = count,
                   .ledger = &lost[static_cast<std::size_t>(task)],
                   .ledger_step = 0});
    const kernels::Mixed<T> mixed{1, {share}, {{1, 0, 0, 0, 0, 0}}};
    for (std::size_t k = 0; k < job.inputs.size(); ++k) {
      if (job.results[k]) {
        kernel.accumulate({.rows = 1,
                           .cols = count,
                           .mixed = mixed,
                           .acc_stride = count,
                           .a = x(k),
                           .a_stride = count,
                           .low = nullptr,
                           .high = nullptr,
                           .bound_stride = 0,
                           .add = false,
                           .out = job.results[k].row(row) + first,
                           .out_stride = count});
      }
    }
  });
  add_absorbed(lost, pieces, job.absorbed);
}

template class AddLayer<float>;
template class AddLayer<double>;

namespace {

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>&) {
  return std::make_unique<AddLayer<T>>();
}

}  // namespace

void register_add(LayerKinds* kinds) { kinds->add("add", make<float>, make<double>); }

}  // namespace pylrp
