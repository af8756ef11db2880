// Attention of samples packed end to end: within each, the layer of its length. For make_attention.cpp.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "layers/attention/attention.hpp"
#include "layers/segments.hpp"

namespace pylrp {

// What is added to the scores: an input with a row for each query, or, where all queries of a sample get the same, a
// number for each key. -1: nothing.
struct AddedBySegment {
  int input = -1;
  bool by_query = false;
  Index head_step = 0;  // between the rows of two heads
};

template <class T>
class SegmentedAttention : public Layer<T> {
 public:
  // one_token: where the heads lie in a row.
  SegmentedAttention(Heads one_token, std::size_t segments, AddedBySegment added);
  Flow flow() const override { return Flow::kProportional; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  Index products() const override { return kUsualLength * of_one_.products(); }
  bool reads_output(const CompiledRule* rule, bool at_hand) const override {
    return of_one_.reads_output(rule, at_hand);
  }
  Coefficients coefficients(const CompiledRule* rule) const override { return of_one_.coefficients(rule); }
  bool hands_to(std::size_t input, const CompiledRule* rule) const override { return of_one_.hands_to(input, rule); }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  static constexpr Index kUsualLength = 64;  // for estimates of work
  using ByLength = std::map<Index, std::unique_ptr<AttentionLayer<T>>>;
  ByLength layers_of(const std::vector<Matrix<const T>>& inputs, Index out_step,
                     const std::vector<Segment>& segments) const;
  bool little(const std::vector<Segment>& segments, Index targets) const;

  Heads heads_;
  std::size_t segments_;
  AddedBySegment added_;
  AttentionLayer<T> of_one_;
};

}  // namespace pylrp
