// Between the user's layout and the core's. Outside, a sample is (channels, positions) or, channels last, (positions,
// channels); inside it is always channels last.
#pragma once

#include "base/pieces.hpp"
#include "base/size.hpp"

namespace pylrp::bindings {

struct Layout {
  Index channels = 1, positions = 1;
  bool channels_last = false;

  Index size() const { return checked_product({channels, positions}, "a value"); }
  // Where an entry of the user's layout lies.
  Index in_core(Index entry) const { return same() ? entry : entry % positions * channels + entry / positions; }
  bool same() const { return channels_last || channels == 1 || positions == 1; }
};

// to(column, row) = from(row, column) for each sample, in blocks that stay in cache.
template <class T>
void transpose_samples(Matrix<const T> from, Index rows, Index columns, Matrix<T> to, const Threads& threads) {
  constexpr Index kBlock = 32;
  const Index pieces = (rows + kBlock - 1) / kBlock;
  parallel_for(from.rows * pieces, threads.alone_if(from.rows * from.cols < 2 * kPiece), [&](Index task) {
    const Index first = task % pieces * kBlock, last = std::min(rows, first + kBlock);
    const T* const x = from.row(task / pieces);
    T* const y = to.row(task / pieces);
    for (Index block = 0; block < columns; block += kBlock) {
      for (Index i = first; i < last; ++i) {
        for (Index j = block; j < std::min(columns, block + kBlock); ++j) {
          y[j * rows + i] = x[i * columns + j];
        }
      }
    }
  });
}
template <class T>
void to_core(const Layout& layout, Matrix<const T> user, Matrix<T> core, const Threads& threads) {
  transpose_samples(user, layout.channels, layout.positions, core, threads);
}
template <class T>
void to_user(const Layout& layout, Matrix<const T> core, Matrix<T> user, const Threads& threads) {
  transpose_samples(core, layout.positions, layout.channels, user, threads);
}

}  // namespace pylrp::bindings
