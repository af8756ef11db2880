// Samples packed end to end: their tokens are the rows of one batch. Which rows belong together is an input of the
// layers that look across rows, (rows, 2): where a row's sample begins, and how many rows it has.
#pragma once

#include <cmath>
#include <vector>

#include "base/error.hpp"
#include "base/view.hpp"

namespace pylrp {

struct Segment {
  Index first = 0, count = 0;
};

// Throws Error where they do not cover the rows, one after the other.
template <class T>
std::vector<Segment> segments_of(const Matrix<const T>& given) {
  std::vector<Segment> found;
  for (Index row = 0; row < given.rows; row += found.back().count) {
    const T first = given.row(row)[0], count = given.row(row)[1];
    const T rest = static_cast<T>(given.rows - row);
    if (first != static_cast<T>(row) || !(count >= 1 && count <= rest) || std::floor(count) != count) {
      throw Error("the segments do not cover the rows");
    }
    found.push_back({row, static_cast<Index>(count)});
  }
  return found;
}

}  // namespace pylrp
