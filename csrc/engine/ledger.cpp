#include "engine/ledger.hpp"

#include "base/pieces.hpp"
#include "kernels/dispatch.hpp"

namespace pylrp {

template <class T>
std::vector<double> row_sums(Matrix<const T> values, const Threads& threads) {
  const Index pieces = pieces_of(values.cols);
  std::vector<double> parts(static_cast<std::size_t>(values.rows * pieces));
  each_piece(values.rows, values.cols, threads, [&](Index task, Index row, Index first, Index count) {
    parts[static_cast<std::size_t>(task)] = kernels::table<T>().sum(count, values.row(row) + first);
  });
  std::vector<double> sums(static_cast<std::size_t>(values.rows));
  for (std::size_t i = 0; i < parts.size(); ++i) {
    sums[i / static_cast<std::size_t>(pieces)] += parts[i];
  }
  return sums;
}

template std::vector<double> row_sums<float>(Matrix<const float>, const Threads&);
template std::vector<double> row_sums<double>(Matrix<const double>, const Threads&);

}  // namespace pylrp
