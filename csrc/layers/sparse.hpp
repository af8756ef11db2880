// Outputs that read a few inputs each, by a table: data movement (flatten, transpose, pad, slice, nearest upsampling:
// one input, weight 1) and linear interpolation (several inputs with weights).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/buffer.hpp"
#include "layers/layer.hpp"

namespace pylrp {

template <class T>
class SparseLayer : public Layer<T> {
 public:
  // index(outputs, taps): an input, or -1 for `fill`; weight(outputs, taps) or null for ones.
  SparseLayer(Index inputs, Index outputs, Index taps, const std::int32_t* index, const T* weight, T fill);
  // Moved relevance goes where the value came from; interpolated relevance is shared in proportion.
  Flow flow() const override { return weight_.empty() ? Flow::kThrough : Flow::kOwn; }
  bool keeps_nonnegative() const override {
    return fill_ >= 0 && std::all_of(weight_.begin(), weight_.end(), [](T w) { return w >= 0; });
  }
  bool reads_inputs(const CompiledRule*) const override { return !weight_.empty(); }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  T sum(const T* x, Index output) const;

  Index inputs_, outputs_, taps_;
  std::vector<std::int32_t> index_;
  std::vector<T> weight_;
  T fill_;
  // The readers of each input: entries [begin[i], begin[i + 1]) of reader (output * taps + tap).
  std::vector<std::int32_t> begin_, reader_;
};

}  // namespace pylrp
