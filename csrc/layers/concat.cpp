#include "layers/concat.hpp"

#include <algorithm>

#include "base/pieces.hpp"
#include "layers/registry.hpp"

namespace pylrp {

template <class T>
ConcatLayer<T>::ConcatLayer(Index outer, std::vector<Index> blocks) : outer_(outer), blocks_(std::move(blocks)) {
  for (const Index block : blocks_) {
    total_ += checked_product({outer_, block}, "a block of a concatenation") == 0 ? 0 : block;
    checked_product({outer_, total_}, "a concatenation");
  }
}

template <class T>
void ConcatLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  bool fit = inputs.size() == blocks_.size() && output == outer_ * total_;
  for (std::size_t k = 0; fit && k < inputs.size(); ++k) {
    fit = inputs[k] == outer_ * blocks_[k];
  }
  require_fit(fit, "the blocks of a concatenation and its inputs");
}

template <class T>
void ConcatLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                             const Threads& threads) const {
  parallel_for(output.rows * outer_, threads.alone_if(output.rows * output.cols < kPiece), [&](Index task) {
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
  parallel_for(r.rows * outer_, threads.alone_if(r.rows * r.cols < kPiece), [&](Index task) {
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

template class ConcatLayer<float>;
template class ConcatLayer<double>;

namespace {

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  return std::make_unique<ConcatLayer<T>>(fields.integer("outer"), fields.integers("blocks"));
}

}  // namespace

void register_concat(LayerKinds* kinds) { kinds->add("concat", make<float>, make<double>); }

}  // namespace pylrp
