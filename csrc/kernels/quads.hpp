// Kernels for convolutions below a pool of 2 x 2, beside the table that all layers have: of each four neighbouring
// positions one is wanted, another one for each channel. Single precision, and processors that shuffle the lanes of a
// vector by another one; elsewhere there are none. quads.cpp finds those of the instruction set that runs.
#pragma once

#include "kernels/table.hpp"

namespace pylrp::kernels {

// Lists of what is not zero in one of four pixels: an entry is a step of the reduction and four values. Column j of a
// quad takes the value choice[j] = 0 ... 3 of each entry.
inline constexpr int kQuadPanels = 3;
struct ListQuads : Lists<float> {
  const std::int32_t* choice;  // (quads, panels * tile_cols)
  Index choice_stride;
};

struct QuadTable {
  // The list of four pixels x[0] ... x[3]; returns its length, writes four values and a step beyond it.
  Index (*compress)(Index k, const float* const* x, float* values, std::uint16_t* steps);
  void (*list_quads)(const ListQuads& args);
  // Which of four rows is not zero, 0 where none is, and their sum; false: somewhere several are. A row may be null:
  // zeros. Writes whole vectors.
  bool (*choose)(Index n, const float* const* r, std::int32_t* choice, float* sum);
  // s to the chosen row, zeros to the others; a row may be null. Reads whole vectors.
  void (*place)(Index n, const std::int32_t* choice, const float* s, float* const* to);
};

// Of the instruction set that runs; null: it has none.
const QuadTable* quads();

}  // namespace pylrp::kernels
