// Elementwise work in pieces.
#pragma once

#include <algorithm>

#include "base/parallel.hpp"

namespace pylrp {

inline constexpr Index kPiece = 1 << 14;  // elements a task
inline Index pieces_of(Index cols) { return (cols + kPiece - 1) / kPiece; }

// parallel_for, with some of the n at a time where each is of few elements.
template <class Body>
void some_at_once(Index n, Index elements, const Threads& threads, Body body) {
  const Index at_once = std::max<Index>(1, kPiece / std::max<Index>(1, elements));
  parallel_for((n + at_once - 1) / at_once, threads, [&](Index task) {
    for (Index i = task * at_once; i < std::min(n, (task + 1) * at_once); ++i) {
      body(i);
    }
  });
}

// body(piece, row, first column, columns); what is less than two pieces is not worth a second thread.
template <class Body>
void each_piece(Index rows, Index cols, const Threads& threads, Body body) {
  const Index pieces = pieces_of(cols);
  some_at_once(rows * pieces, cols, threads.alone_if(rows * cols < 2 * kPiece), [&](Index piece) {
    const Index first = piece % pieces * kPiece;
    body(piece, piece / pieces, first, std::min(kPiece, cols - first));
  });
}

}  // namespace pylrp
