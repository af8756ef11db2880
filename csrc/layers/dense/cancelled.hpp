// Where denominators made out of z = W a + b and v = |W| |a| + |b| (rules/lower.hpp, by_magnitude) are a small part of
// v, which cancels: shares of such entries from their contributions one by one, and what they send.
#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "kernels/dispatch.hpp"
#include "layers/dense/dense.hpp"
#include "rules/cancelled.hpp"

namespace pylrp {

// Of rows [begin, begin + batch) of a job. usual: its own rule's denominators, in whose two sums P and N may stand.
template <class T>
class Cancelled {
 public:
  Cancelled(const DenseJob<T>& job, const kernels::Shares<T>& usual, Index begin, Index batch);
  // kernel.shares() of some rows and columns with z and v as sums; row: the first, of the batch.
  void shares(const kernels::SharesOfRows<T>& args, Index row, Index column);
  // Then the batch is to be computed anew by the usual rule.
  bool too_many() const { return count_ > most_; }
  // Adds to the result, once all shares are made.
  void send(const Threads& threads);

 private:
  struct Entry {
    Index row, column;
    BySign<T> share;
  };
  std::vector<Index> find(const kernels::SharesOfRows<T>& args, Index row) const;
  void alone(const kernels::SharesOfRows<T>& args, Index entry, Index row, Index column);

  const kernels::Table<T>& kernel_ = kernels::table<T>();
  const DenseJob<T>& job_;
  const LoweredRule& rule_;
  const kernels::Shares<T>& usual_;
  Index begin_, most_;
  std::atomic<Index> count_{0};
  std::mutex mutex_;
  std::vector<Entry> sending_;
};

}  // namespace pylrp
