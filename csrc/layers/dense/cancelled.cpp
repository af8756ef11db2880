#include "layers/dense/cancelled.hpp"

#include <algorithm>

namespace pylrp {

template <class T>
Cancelled<T>::Cancelled(const DenseJob<T>& job, const kernels::Shares<T>& usual, Index begin, Index batch)
    : job_(job), rule_(*job.magnitudes), usual_(usual), begin_(begin), most_(batch * job.layer.weight.rows / 64 + 64) {}

// Entries (row * columns + column) whose relevance meets a small part of v.
template <class T>
std::vector<Index> Cancelled<T>::find(const kernels::SharesOfRows<T>& args, Index row) const {
  const Index most = rule_.may_cancel ? args.rows * args.cols : 0;
  std::vector<Index> found(static_cast<std::size_t>(most));
  if (most > 0) {
    found.resize(static_cast<std::size_t>(
        kernel_.cancelled(args.rows, args.cols, args.z[0], args.z[1], args.z_stride, most, found.data())));
  }
  const auto is_exact = [&](Index entry) {
    const Index i = entry / args.cols, j = entry % args.cols, at = i * args.z_stride + j;
    const T* const x = job_.input.row(begin_ + row + i);
    // Nothing but the bias is there where all inputs are 0.
    return !is_cancelled(rule_, static_cast<double>(args.z[0][at]), static_cast<double>(args.z[1][at])) ||
           args.r[i * args.r_stride + j] == 0 || std::all_of(x, x + job_.input.cols, [](T a) { return a == 0; });
  };
  found.erase(std::remove_if(found.begin(), found.end(), is_exact), found.end());
  return found;
}

template <class T>
void Cancelled<T>::shares(const kernels::SharesOfRows<T>& args, Index row, Index column) {
  const std::vector<Index> found = find(args, row);
  if (found.empty() || (count_ += static_cast<Index>(found.size())) > most_) {
    kernel_.shares(args);
    return;
  }
  const Buffer<T> others(args.rows * args.cols);
  for (Index i = 0; i < args.rows; ++i) {
    std::copy_n(args.r + i * args.r_stride, args.cols, others.data() + i * args.cols);
  }
  for (const Index entry : found) {
    others.data()[entry] = T(0);
  }
  kernels::SharesOfRows<T> rest = args;
  rest.r = others.data();
  rest.r_stride = args.cols;
  kernel_.shares(rest);
  for (const Index entry : found) {
    alone(args, entry, row, column);
  }
}

template <class T>
void Cancelled<T>::alone(const kernels::SharesOfRows<T>& args, Index entry, Index row, Index column) {
  const Index i = entry / args.cols, j = entry % args.cols;
  const T *const x = job_.input.row(begin_ + row + i), *const weights = job_.layer.weight.row(column + j);
  BySign<double> of;
  add_contributions(job_.input.cols, weights, 1, x, &of);
  const T sums[] = {static_cast<T>(of.above), static_cast<T>(of.below)};
  const T* const z[] = {&sums[0], &sums[1]};
  T s[2] = {}, *to[2] = {&s[0], &s[1]};
  kernel_.shares({.rows = 1,
                  .cols = 1,
                  .rule = shares_at_column(usual_, column + j),
                  .z = z,
                  .z_stride = 1,
                  .r = args.r + i * args.r_stride + j,
                  .r_stride = 1,
                  .s = to,
                  .s_stride = 1,
                  .ledger = args.ledger ? args.ledger + i * args.ledger_step : nullptr,
                  .ledger_step = args.ledger_step});
  if (!rule_.half_sum_and_difference) {
    args.s[0][i * args.s_stride + j] = s[0];
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  sending_.push_back({begin_ + row + i, column + j, {s[0], s[1]}});
}

template <class T>
void Cancelled<T>::send(const Threads& threads) {
  const auto before = [](const Entry& a, const Entry& b) {
    return a.row < b.row || (a.row == b.row && a.column < b.column);
  };
  std::sort(sending_.begin(), sending_.end(), before);  // tasks have found them in any order
  std::vector<std::size_t> first;                       // of each row
  for (std::size_t e = 0; e < sending_.size(); ++e) {
    if (e == 0 || sending_[e].row != sending_[e - 1].row) {
      first.push_back(e);
    }
  }
  first.push_back(sending_.size());
  parallel_for(static_cast<Index>(first.size()) - 1, threads, [&](Index task) {
    const std::size_t begin = first[static_cast<std::size_t>(task)], end = first[static_cast<std::size_t>(task) + 1];
    for (std::size_t e = begin; e < end; ++e) {
      const Entry& entry = sending_[e];
      send_contributions(job_.input.cols, job_.layer.weight.row(entry.column), 1, job_.input.row(entry.row),
                         entry.share, job_.result.row(entry.row));
    }
  });
}

template class Cancelled<float>;
template class Cancelled<double>;

}  // namespace pylrp
