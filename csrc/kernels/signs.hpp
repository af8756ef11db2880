// Kernels for two products at once, beside the table that all layers have: one left operand meets the positive weights
// and another one the negative ones, as alpha-beta sends relevance back. Each weight takes part in one of the two: its
// sign picks the value. Single precision and vectors of 64 bytes; elsewhere there are none, and two products are made.
#pragma once

#include "kernels/table.hpp"

namespace pylrp::kernels {

// Lists of what is not zero in one of two rows, or in one of two pairs of rows (of rows 2 i and 2 i + 1): an entry is a
// step of the reduction and for each row two values, what a positive weight meets and what a negative one does.
inline constexpr int kSignPanels[] = {4, 3};  // side by side, of rows and of pairs
struct ListSigns : Lists<float> {
  int together;                // 1, rows; 2, pairs
  const std::uint16_t* signs;  // of the same panels
};

struct SignTable {
  // signs[(step * panels + panel) * 2 + half]: which weights of a vector are below zero.
  void (*read)(Index steps, int panels, const float* const* panel, std::uint16_t* signs);
  // The list of a pair: x has what positive and negative weights meet of the first row, then of the second. Returns its
  // length, writes up to 4 * kSpare values beyond. That of one row: compress_pair.
  Index (*compress_pair)(Index k, const float* const* x, float* values, std::uint16_t* steps);
  void (*list_signs)(const ListSigns& args);
};

// Of the instruction set that runs; null: it has none.
const SignTable* signs();

}  // namespace pylrp::kernels
