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
  // index(outputs, taps): an input, or -1 for a constant, `fill`, one for all or one for each output;
  // weight(outputs, taps) or null for ones. Throws Error where an index lies outside, or 32 bits don't count
  // them.
  SparseLayer(Index inputs, Index outputs, Index taps, const std::int32_t* index, const T* weight, std::vector<T> fill);
  SparseLayer(Index inputs, Index outputs, Index taps, const std::int32_t* index, const T* weight, T fill)
      : SparseLayer(inputs, outputs, taps, index, weight, std::vector<T>{fill}) {}
  // Moved relevance goes where the value came from; interpolated relevance is shared in proportion.
  Flow flow() const override { return weight_.empty() ? Flow::kRouted : Flow::kProportional; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool keeps_nonnegative() const override {
    const auto nonnegative = [](T v) { return v >= 0; };
    return std::all_of(fill_.begin(), fill_.end(), nonnegative) &&
           std::all_of(weight_.begin(), weight_.end(), nonnegative);
  }
  bool reads_inputs(const CompiledRule*) const override { return !weight_.empty(); }
  Coefficients coefficients(const CompiledRule* rule) const override {
    return weight_.empty() || (rule != nullptr && rule->is_exact()) ? Coefficients::kAlong : Coefficients::kNever;
  }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  T sum(const T* x, Index output) const;
  void lose_constants(const RelevanceJob<T>& job) const;
  T fill(Index output) const { return fill_[fill_.size() == 1 ? 0 : static_cast<std::size_t>(output)]; }

  Index inputs_, outputs_, taps_;
  std::vector<std::int32_t> index_;
  std::vector<T> weight_, fill_;
  // The readers of each input: entries [begin[i], begin[i + 1]) of reader (output * taps + tap).
  std::vector<std::int32_t> begin_, reader_;
};

}  // namespace pylrp
