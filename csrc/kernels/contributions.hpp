// Kernels that take the contributions w a of single outputs one by one, beside the table that all layers have: of those
// outputs that have relevance, where many have none and inputs have both signs. Single precision and processors with
// AVX2 or more; contributions.cpp finds those of the instruction set that runs.
#pragma once

#include "kernels/table.hpp"

namespace pylrp::kernels {

// Some positions, and of each a list of entries, outputs that count: position i has the entries from begins[i] to
// begins[i + 1]. Rows of weights and inputs are whole vectors, with zeros behind `columns`.
struct Contributions {
  Index rows;
  const Index* begins;
  const std::uint16_t* at;  // of each entry its row of w; kSpare more, which may be any rows of w, are read
  const float* w;
  const float* x;
  Index stride;        // of both
  Index columns;       // at most ContributionTable::columns
  float plain, extra;  // f(c) = plain c + extra max(c, 0)
};

struct ContributionTable {
  int columns;
  bool apart;  // whether `below` may be there
  // Of each entry the sum of f(w x); or, where `below` is not null, of what is above and below zero. Writes up to
  // kSpare entries more.
  void (*sum)(const Contributions& args, float* sums, float* below);
  // out(rows, columns) = or += sum over entries of s f(w x); or, where `below` is not null, of s max(w x, 0) + below
  // min(w x, 0). Rows of `out` lie and end as those of x.
  void (*send)(const Contributions& args, const float* s, const float* below, bool add, float* out);
  // The same for several targets, whose outputs with relevance are listed together; `below` is null. s and out have one
  // row a target, `s_step` and `out_step` apart.
  void (*send_targets)(const Contributions& args, int targets, const float* s, Index s_step, bool add, float* out,
                       Index out_step);
  // What is not zero in one row of x or in several, `step` apart: their values side by side in as many lists, `to_step`
  // apart, and its steps. Returns how many; writes up to kSpare more.
  Index (*compress_targets)(Index k, int targets, const float* x, Index step, float* to, Index to_step,
                            std::uint16_t* steps);
};

// Of the instruction set that runs; null: it has none.
const ContributionTable* contributions();

}  // namespace pylrp::kernels
