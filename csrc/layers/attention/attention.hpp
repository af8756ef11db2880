// Attention as one layer: softmax(scale q k^T, capped, with masks added) v for some heads, in blocks of queries, so
// that scores and probabilities of a whole head are never stored. What a lowering makes of two products with a softmax
// between them (pylrp/network/fused.py); layers/matmul.cpp, softmax.cpp and shift.cpp have the same formulas apart.
#pragma once

#include <vector>

#include "layers/attention/masks.hpp"
#include "layers/layer.hpp"

namespace pylrp {

struct Heads {
  Index queries = 0, keys = 0, width = 0, value_width = 0;
  double scale = 1, cap = 0;  // cap 0: none; else cap tanh(score / cap)
  HeadMatrix q, k, v, out;    // heads that share keys share values, and the other way round
  std::vector<bool> covered;  // of the inputs: q, k and v cover it
};

template <class T>
struct ScoreBlock;
template <class T>
struct KeysAndValues;
template <class T>
struct SumsOverQueries;
template <class T>
class SegmentedAttention;

// Treatment::kTaylor: half of the relevance to the values, a half to the probabilities, from there by the softmax's
// first-order Taylor expansion to the scores, which share it between queries and keys; kStop: that half stays in the
// softmax; kValueRight: all to the values.
template <class T>
class AttentionLayer : public Layer<T> {
 public:
  AttentionLayer(Heads heads, std::vector<AddedToScores<T>> added);
  Flow flow() const override { return Flow::kProportional; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  Index products() const override;
  bool reads_output(const CompiledRule*, bool) const override { return true; }
  Coefficients coefficients(const CompiledRule*) const override { return Coefficients::kServes; }
  bool hands_to(std::size_t input, const CompiledRule* rule) const override;
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  friend class SegmentedAttention<T>;  // groups of heads as tasks of its own
  Index groups() const { return static_cast<Index>(groups_.size()); }
  // Zero where no task writes.
  void clear_results(const RelevanceJob<T>& job) const;
  static Treatment treatment_of(const CompiledRule* rule) {
    return rule == nullptr ? Treatment::kTaylor : rule->rule().treatment;
  }
  void score(const KeysAndValues<T>& group, const T* queries, ScoreBlock<T>* block, MasksOfHead<T>* masks) const;
  void forward_of_group(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, Index sample,
                        std::size_t number) const;
  void relevance_of_group(const RelevanceJob<T>& job, Index row, std::size_t number, kernels::Absorbed* lost) const;
  void to_values(const RelevanceJob<T>& job, Index row, const ScoreBlock<T>& block, SumsOverQueries<T>* sums) const;
  void to_scores(const KeysAndValues<T>& group, const ScoreBlock<T>& block, MasksOfHead<T>* masks,
                 SumsOverQueries<T>* sums) const;
  void to_queries(const RelevanceJob<T>& job, Index row, const KeysAndValues<T>& group, const ScoreBlock<T>& block,
                  SumsOverQueries<T>* sums) const;

  Heads of_;
  Masks<T> masks_;
  std::vector<std::vector<std::size_t>> groups_;  // heads with the same keys and values
};

}  // namespace pylrp
