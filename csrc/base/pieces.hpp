// Elementwise work in pieces.
#pragma once

#include <algorithm>

#include "base/parallel.hpp"

namespace pylrp {

inline constexpr Index kPiece = 1 << 14;  // elements a task
inline Index pieces_of(Index cols) { return (cols + kPiece - 1) / kPiece; }

// body(task, row, first column, columns); what is less than two pieces is not worth a second thread.
template <class Body>
void each_piece(Index rows, Index cols, const Threads& threads, Body body) {
  const Index pieces = pieces_of(cols);
  parallel_for(rows * pieces, threads.alone_if(rows * cols < 2 * kPiece), [&](Index task) {
    const Index first = task % pieces * kPiece;
    body(task, task / pieces, first, std::min(kPiece, cols - first));
  });
}

}  // namespace pylrp
