// What fused_1x1.cpp and signs_by_magnitude.cpp share: a rule's products with a kernel of one, and some positions of a
// sample on their way through them.
#pragma once

#include <memory>
#include <vector>

#include "layers/conv/plan.hpp"
#include "products/panels.hpp"

namespace pylrp {

// A rule as products with packed weights.
template <class T>
struct FusedProducts {
  // sum_is_output: the layer's output stands for the one sum.
  FusedProducts(const ConvWeights<T>& w, const LoweredRule& of, bool sum_is_output_, const Threads& threads);
  Index sums() const { return static_cast<Index>(forward.size()); }
  Index groups() const { return static_cast<Index>(rule.groups.size()); }
  // What a position needs for its sums, shares, back products and parts of the input.
  Index row_bytes() const {
    return ((3 + back_sums) * in_stride + (sums() + groups() + 1) * out_stride) * static_cast<Index>(sizeof(T));
  }

  const LoweredRule& rule;
  bool sum_is_output;
  ShareConstants<T> constants;
  PanelSet<T> panels;
  std::vector<std::vector<std::size_t>> forward;  // panels of each sum
  std::vector<std::size_t> backward;              // of each back product
  Index back_sums = 0;
  Index in_stride, out_stride;  // rows with room for whole panels
  std::vector<T> ones;
};

// Some positions of a sample: compute_sums(), then for each target compute_shares() and send_back().
template <class T>
class FusedBlock {
 public:
  FusedBlock(const ConvCall<T>& call, const FusedProducts<T>& products, Index sample, Index first, Index rows);
  Index rows() const { return rows_; }
  const T* relevance(Index target) const;  // (rows, out)
  const T* sum(std::size_t q) const { return z_[q]; }
  // The part of the input that a product reads, row i at i * stride.
  const T* input_part(Part part, Index* stride);

  void compute_sums();
  void compute_shares(const T* relevance, kernels::Absorbed* lost);
  // The result is what `more` holds and the back products.
  void send_back(Index target, const kernels::Mixed<T>& more);

 private:
  const kernels::Table<T>& kernel_ = kernels::table<T>();
  const ConvCall<T>& call_;
  const FusedProducts<T>& products_;
  Index sample_, first_, rows_, in_, out_;
  const T *x_, *low_, *high_;
  Buffer<T> memory_, parts_[3];  // sums, shares, back products; a-, |a|, a+
  const T* z_[kernels::kMaxSums] = {};
  T* s_[kernels::kMaxGroups] = {};
  T* back_ = nullptr;
};

// Another way through a block. run() returns false where it does not do: it has written nothing then, and the usual
// products are packed.
template <class T>
struct FusedShortcut {
  virtual ~FusedShortcut() = default;
  virtual bool run(Index sample, Index first, Index rows, kernels::Absorbed* lost) = 0;
};
// signs_by_magnitude.cpp; null: it does not apply.
template <class T>
std::unique_ptr<FusedShortcut<T>> signs_by_magnitude(const ConvCall<T>& call, const FusedProducts<T>& usual);

}  // namespace pylrp
