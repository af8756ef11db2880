// Some positions of a sample on their way through a rule by contributions (kernels/contributions.hpp): their outputs
// with relevance are listed, c = w a of these is summed up, and what they send back is added up.
#pragma once

#include <vector>

#include "kernels/contributions.hpp"
#include "layers/conv/plan.hpp"

namespace pylrp {

// What is above and what is below zero is summed up apart; else one f is all.
bool is_apart(const ByContribution& made, const LoweredRule& rule);

// The relevance of targets that go together, of a sample's position on: one behind the other.
struct TargetRows {
  const float* first;
  Index step, targets;
};
TargetRows rows_of(const RelevanceJob<float>& job, Index target, Index targets, Index sample, Index at);

// What all tasks read. A position reads one row of the weights' inputs.
struct Contributing {
  // padded: rows of inputs and of what is sent are `stride` apart in memory; else they lie side by side.
  Contributing(const ConvCall<float>& call, bool padded);
  // Rows of whole vectors.
  void pad(const float* from, Index rows, float* to) const;
  Index row_bytes(Index targets) const;

  ShareConstants<float> constants;
  kernels::Shares<float> shares;
  const ByContribution& rule;
  bool apart;
  float plain, extra;                        // of f
  Index in, out, stride, row, blocks, most;  // row: from row to row in memory; most: outputs of a block, at most
  const float* weights;
  Buffer<float> own_weights;
};

// For targets that share their lists.
class ContributingBlock {
 public:
  ContributingBlock(const Contributing& of, Index rows, Index targets);
  void read(const float* x);
  // out may be what was read, if there is one target.
  void run(const TargetRows& relevance, float* out, Index out_step, kernels::Absorbed* lost);

 private:
  bool sends_at_once() const { return of_.stride == of_.row && of_.blocks == 1; }
  void make_lists(const TargetRows& relevance, Index first, Index outputs);
  void send(const kernels::Contributions& part, Index column, bool add) const;
  template <class Body>
  void each_part(Index first, Body body) const;
  void make_sums(Index first);
  const float* at_entries(const float* of_outputs, Index first, float* to) const;
  void make_shares(Index first, kernels::Absorbed* lost);
  void weigh(float* const* shares) const;

  const Contributing& of_;
  Index rows_, targets_, size_, count_ = 0;
  const float* inputs_ = nullptr;             // (rows, stride)
  float* sent_back_ = nullptr;                // (rows, stride) of each target
  Index sent_step_ = 0;                       // from target to target
  Buffer<float> own_inputs_, own_sent_back_;  // where rows have to be padded or blocks added up
  Buffer<float> memory_, more_;
  Buffer<std::uint16_t> steps_;
  std::vector<Index> begins_;
  float *sums_[2], *biases_[2], *shares_[2];  // of each entry; shares: (targets, entries)
};

}  // namespace pylrp
