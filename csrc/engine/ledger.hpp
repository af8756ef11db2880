// The ledger: where a layer's relevance went, by sample.
#pragma once

#include <vector>

#include "base/parallel.hpp"
#include "base/view.hpp"
#include "kernels/table.hpp"

namespace pylrp {

inline constexpr int kLedgerColumns = 9;
enum LedgerColumn { kIncoming, kOutgoing, kBias, kStabilizer, kPadding, kDead, kBatchNorm, kMasked, kRounding };

// The sum of each row, in a fixed order.
template <class T>
std::vector<double> row_sums(Matrix<const T> values, const Threads& threads);

// One layer's page, (kLedgerColumns, rows): rounding is what is left.
inline void write_page(const std::vector<double>& incoming, const std::vector<double>& outgoing,
                       const std::vector<double>& masked, const std::vector<kernels::Absorbed>& absorbed,
                       double* page) {
  const Index rows = static_cast<Index>(incoming.size());
  for (Index i = 0; i < rows; ++i) {
    const std::size_t row = static_cast<std::size_t>(i);
    const kernels::Absorbed& lost = absorbed[row];
    const double parts[] = {outgoing[row],
                            lost.bias,
                            lost.stabilizer,
                            lost.padding,
                            lost.dead,
                            lost.batchnorm,
                            masked.empty() ? 0 : masked[row]};
    double left = incoming[row];
    page[kIncoming * rows + i] = left;
    for (int column = kOutgoing; column < kRounding; ++column) {
      page[column * rows + i] = parts[column - kOutgoing];
      left -= parts[column - kOutgoing];
    }
    page[kRounding * rows + i] = left;
  }
}

}  // namespace pylrp
