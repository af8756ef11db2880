#include "layers/combine.hpp"

#include <algorithm>

#include "layers/dense.hpp"
#include "layers/pieces.hpp"
#include "layers/share.hpp"

namespace pylrp {
template <class T>
void AddLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
                          const Threads& threads) const {
  each_piece(output.rows, output.cols, threads, [&](Index, Index row, Index first, Index count) {
    T* const out = output.row(row) + first;
    std::copy_n(inputs[0].row(row) + first, count, out);
    for (std::size_t k = 1; k < inputs.size(); ++k) {
      const T* const x = inputs[k].row(row) + first;
      const bool last = k + 1 == inputs.size();
      const T low = last ? clamp.low : Clamp<T>{}.low, high = last ? clamp.high : Clamp<T>{}.high;
      for (Index j = 0; j < count; ++j) {
        const T sum = out[j] + x[j];
        out[j] = sum < low ? low : (sum > high ? high : sum);
      }
    }
  });
}

template <class T>
void AddLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const Stabilizer<T> stabilizer(job.rule);
  const Index pieces = pieces_of(job.relevance.cols);
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(job.relevance.rows * pieces));
  each_piece(job.relevance.rows, job.relevance.cols, threads, [&](Index task, Index row, Index first, Index count) {
    const T* const r = job.relevance.row(row) + first;
    const Index sample = row % job.batch;
    for (Index j = 0; j < count; ++j) {
      T z = job.inputs[0].row(sample)[first + j];
      for (std::size_t k = 1; k < job.inputs.size(); ++k) {
        z += job.inputs[k].row(sample)[first + j];
      }
      const T q = stabilizer.share(r[j], z, &lost[static_cast<std::size_t>(task)]);
      for (std::size_t k = 0; k < job.inputs.size(); ++k) {
        if (job.results[k]) {
          job.results[k].row(row)[first + j] = job.inputs[k].row(sample)[first + j] * q;
        }
      }
    }
  });
  for (std::size_t task = 0; task < lost.size(); ++task) {
    add_absorbed(lost[task], &job.absorbed[static_cast<Index>(task) / pieces]);
  }
}

template <class T>
ConcatLayer<T>::ConcatLayer(Index outer, std::vector<Index> blocks) : outer_(outer), blocks_(std::move(blocks)) {
  for (const Index block : blocks_) {
    total_ += block;
  }
}

template <class T>
void ConcatLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                             const Threads& threads) const {
  parallel_for(output.rows * outer_, {output.rows * output.cols < kPiece ? 1 : threads.count, threads.poll},
               [&](Index task) {
                 const Index row = task / outer_, stretch = task % outer_;
                 T* out = output.row(row) + stretch * total_;
                 for (std::size_t k = 0; k < inputs.size(); ++k) {
                   out = std::copy_n(inputs[k].row(row) + stretch * blocks_[k], blocks_[k], out);
                 }
               });
}

template <class T>
void ConcatLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const Matrix<const T> r = job.relevance;
  parallel_for(r.rows * outer_, {r.rows * r.cols < kPiece ? 1 : threads.count, threads.poll}, [&](Index task) {
    const Index row = task / outer_, stretch = task % outer_;
    const T* from = r.row(row) + stretch * total_;
    for (std::size_t k = 0; k < blocks_.size(); ++k) {
      if (job.results[k]) {
        std::copy_n(from, blocks_[k], job.results[k].row(row) + stretch * blocks_[k]);
      }
      from += blocks_[k];
    }
  });
}

template class AddLayer<float>;
template class AddLayer<double>;
template class ConcatLayer<float>;
template class ConcatLayer<double>;

}  // namespace pylrp
