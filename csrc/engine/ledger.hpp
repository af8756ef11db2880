// The ledger: where a layer's relevance went, by sample.
#pragma once

#include <iterator>
#include <vector>

#include "base/parallel.hpp"
#include "base/view.hpp"
#include "kernels/table.hpp"

namespace pylrp {

// The columns of a page: what arrives, what goes on, and the causes: the layers' (kernels/table.hpp), what a mask
// closed and what is left.
#define PYLRP_EACH_COLUMN(COLUMN) \
  COLUMN(incoming) COLUMN(outgoing) PYLRP_LEDGER_CAUSES(COLUMN) COLUMN(masked) COLUMN(rounding)
struct Ledger {
  enum Column : int {
#define PYLRP_NAME(name) name,
    PYLRP_EACH_COLUMN(PYLRP_NAME)
#undef PYLRP_NAME
  };
};
inline constexpr const char* kLedgerColumnNames[] = {
#define PYLRP_NAME(name) #name,
    PYLRP_EACH_COLUMN(PYLRP_NAME)
#undef PYLRP_NAME
};
inline constexpr int kLedgerColumns = static_cast<int>(std::size(kLedgerColumnNames));

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
    double left = incoming[row];
    double* column = page + i;
    *column = left;
    const auto write = [&](double part) {
      column += rows;
      *column = part;
      left -= part;
    };
    write(outgoing[row]);
#define PYLRP_WRITE(name) write(lost.name);
    PYLRP_LEDGER_CAUSES(PYLRP_WRITE)
#undef PYLRP_WRITE
    write(masked.empty() ? 0 : masked[row]);
    column[rows] = left;
  }
}

}  // namespace pylrp
