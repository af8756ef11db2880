// The kernels as a table of functions on raw pointers: the only thing an instruction-set object exports.
// Everything here is plain data, so that no inline code is shared between objects built with different flags.
#pragma once

#include <cstdint>

namespace pylrp::kernels {

using Index = std::int64_t;

// How a weight is read: as it is, its positive part, its negative part, p*w+ + n*w-, its square, or as 1.
enum class Read : int { kPlain, kPositive, kNegative, kMixed, kSquare, kOne };
// Functions of one value that a kernel has.
enum class Function : int { kExp, kSigmoid, kTanh, kErf };
template <class T>
struct Weights {
  Read read;
  T p, n;  // kMixed only
};

// What multiplies a column i of a product: input*a + positive*a+ + negative*a- + one + low*l + high*h.
template <class T>
struct Mix {
  T input, positive, negative, one, low, high;
};

inline constexpr int kMaxSums = 4;
inline constexpr int kMaxGroups = 4;
inline constexpr int kMaxBacks = 4 * kMaxGroups;

// sum_b mix_b(a, low, high) * acc_b
template <class T>
struct Mixed {
  int count;
  const T* acc[kMaxBacks];
  Mix<T> mix[kMaxBacks];
};

// One denominator: z_g = sum_q coef[q] * Z_q + base, s_g = coefficient * mask * R / stab(z_g).
template <class T>
struct Share {
  T coef[kMaxSums];
  const T* base;  // bias and constant terms, one a column; may be null
  const T* bias;  // the bias alone (for the ledger); may be null
  T coefficient;
  T epsilon;
  int mask;         // 0 all, +1 where the plain output is positive, -1 negative
  bool where_zero;  // epsilon only where z == 0
};
template <class T>
struct Shares {
  int sums, groups;
  Share<T> group[kMaxGroups];
  bool masked;
  T plain[kMaxSums];  // plain output = sum_q plain[q] * Z_q + plain_base
  const T* plain_base;
  bool
      half_sum_and_difference;  // two groups without masks: s_0 and s_1 become half their sum and half their difference
};

// Relevance of one sample that does not go on, by cause. This list is the only one in the core: members, sums and the
// ledger's columns follow from it, in this order. bias, stabilizer and dead (neurons without a receiver) are counted by
// the kernels, the others by layers: what falls on padding, the shift of a BatchNorm. A layer with a cause of its own
// adds a line here; its Python class says it in words (Layer.causes).
#define PYLRP_LEDGER_CAUSES(CAUSE) \
  CAUSE(bias)                      \
  CAUSE(stabilizer)                \
  CAUSE(padding)                   \
  CAUSE(dead)                      \
  CAUSE(batchnorm)                 \
  CAUSE(constant)                  \
  CAUSE(position)                  \
  CAUSE(softmax)                   \
  CAUSE(state)
struct Absorbed {
#define PYLRP_MEMBER(name) double name;
  PYLRP_LEDGER_CAUSES(PYLRP_MEMBER)
#undef PYLRP_MEMBER
};

inline constexpr int kSpare = 16;
inline constexpr int kMostTileCols = 32;
inline constexpr int kHasNegative = 1;
inline constexpr int kNotFinite = 2;

// The arguments of the kernels that take many, by name (a call writes .rows = ...). Strides are in elements.
//
// Rows found by pointers, summed over taps: out(rows, tile_cols) = or += sum_t x_t panel_t, where x_t(rows, k) has row
// i at rows_at[t * rows + i] and the panels lie one after the other. halves: how many of the tile's two vectors are
// computed; rows of `out` hold both.
template <class T>
struct TileTaps {
  int rows, halves, taps;
  Index k;
  const T* const* rows_at;
  const T* panel;
  bool add;
  T* out;
  Index out_stride;
};
// Rows of a left operand, or some at a time, as lists of what is not zero: out_p(rows, tile_cols) = or += sum of value
// * panel_p's row, over the entries of row i's list, for some panels side by side. Lists lie one behind the other: list
// l has the entries from begins[l] to begins[l + 1]; row i has list list_of[i].
template <class T>
struct Lists {
  Index rows;  // that have a list each
  const T* values;
  const std::uint16_t* steps;  // of the reduction: rows of a panel
  const Index* begins;
  const std::int32_t* list_of;
  int panels;
  const T* const* panel;
  bool add;
  T* const* out;  // of each panel
  Index out_stride;
};
inline constexpr int kListPanels = 4;
template <class T>
struct ListRows : Lists<T> {
  Index first_list;  // where list_of is null: row i has list first_list + i
};
// The same for rows that each have a list, one behind the other from begins[0] on, of a multiple of kListMultiple
// entries. The panels' rows lie side by side: a step's are group_panels * tile_cols entries behind the last step's.
inline constexpr int kListMultiple = 4;
template <class T>
struct GroupRows {
  Index rows;
  const T* values;
  const std::uint16_t* steps;
  const Index* begins;
  int panels;  // at most group_panels
  const T* group;
  bool add;
  T* const* out;  // of each panel: (rows, tile_cols)
};
// Pairs of rows that share a list, of what is not zero in either: pair i writes rows 2 i and 2 i + 1. An entry is a
// step and two values, the first row's and the second's.
inline constexpr int kPairPanels = 3;
// out(rows, n) = or += sum_t w_t * x_t, element by element; row i of x_t at at[t] + i * step.
template <class T>
struct Depthwise {
  int rows, taps;
  Index n;
  const T* const* at;
  Index step;
  const T* const* w;
  bool add;
  T* out;
  Index out_stride;
};
// The same for the positions of a line, whose taps are neighbours: out(rows, n) = sum over lines t and taps l of
// w_t(l) * x_t(first + scale * row + l), where x_t has the pixels [0, pixels), what is outside is left out, and w_t(l)
// is at w[t] + l * w_step. Taps and scale: 1, 2, 3 or 5 and 1, or 3 or 5 and 2.
template <class T>
struct DepthwiseLine {
  int lines, taps, scale;
  Index rows, n;
  const T* const* at;  // pixel 0 of each line
  Index first, pixels, step;
  const T* const* w;
  Index w_step;
  T* out;
  Index out_stride;
};
// out = add * out + sum_b mix_b(a, low, high) * acc_b, over (rows, cols). a may be null where no mix uses it, and may
// be `out`; row i of the bounds starts at i * bound_stride.
template <class T>
struct Accumulate {
  Index rows, cols;
  const Mixed<T>& mixed;
  Index acc_stride;
  const T* a;
  Index a_stride;
  const T* low;
  const T* high;
  Index bound_stride;
  bool add;
  T* out;
  Index out_stride;
};
// s_g(rows, cols) from Z_q and R; s may be the array of a z, or, where there is one group, R's. ledger: added to, one
// Absorbed a row or (step 0) one for all rows; or null.
template <class T>
struct SharesOfRows {
  Index rows, cols;
  const Shares<T>& rule;
  const T* const* z;
  Index z_stride;
  const T* r;
  Index r_stride;
  T* const* s;
  Index s_stride;
  Absorbed* ledger;
  int ledger_step;
};
// What a sum leaves of the output: out(rows, cols) = z - bias - first; bias may be null. Where that cancels (|out| <
// |first| / 16 or |bias| / 64, and z != 0) i * cols + j is written down, their number returned.
template <class T>
struct LeftOver {
  Index rows, cols;
  const T* z;
  Index z_stride;
  const T* bias;
  const T* first;
  Index first_stride;
  T* out;
  Index out_stride;
  Index* cancelled_at;
};
// out(rows, cols) = min(max(acc + bias, low), high); bias may be null.
template <class T>
struct Finish {
  Index rows, cols;
  const T* acc;
  Index acc_stride;
  const T* bias;
  T low, high;
  T* out;
  Index out_stride;
};
// A row of attention: scores s, what is added to them (may be null), powers e and their share p = e * share, and what
// the probabilities get, c. c becomes p * (c - all), 0 where e, s or s + m is 0. by_scores += (s + m) c, by_added +=
// m c.
template <class T>
struct TaylorOfScores {
  Index n;
  const T* scores;
  const T* added;
  const T* powers;
  T share, all;
  T* c;
  double* by_scores;
  double* by_added;
};

// The products with whole rows of weights, stored as W. cold: the rows come out of memory, so that they are asked for
// ahead; they have not been read just before.
template <class T, class W>
struct RowProducts {
  // z[r] += sum_k rho(w_r[k]) x[k].   x null: ones.
  void (*dot)(int rows, const W* const* w, Index k, Weights<T> map, const T* x, T* z, bool cold);
  // c[k] += sum_r s[r] rho(w_r[k]).
  void (*axpy)(int rows, const W* const* w, Index k, Weights<T> map, const T* s, T* c, bool cold);
};

// Some rows of weights times samples that lie along the lanes: sums(row, sample) = or += sum_k w(row, k) x(k, sample).
template <class T>
struct SampleTile {
  int part;  // of the panel's tile_cols rows: [tile_cols * part / sample_parts, tile_cols * (part + 1) / sample_parts)
  int samples;  // 1 ... tile_cols
  Index k;
  const T* w;  // row 0 of the panel
  Index stride;
  const T* x;  // (k, samples), with tile_cols entries behind it
  bool add;
  T* sums;        // (tile_cols, tile_cols)
  const T* next;  // as many rows of weights, for as many steps, that are fetched meanwhile; may be null
  Index next_stride;
};

template <class T>
struct Table {
  int tile_rows;     // most rows of a tile
  int tile_cols;     // columns of a tile: the width of a packed panel
  int sample_parts;  // of a panel: see SampleTile
  int group_panels;  // see GroupRows

  // out(rows, tile_cols) = or += left(k, rows)^T panel(k, tile_cols); left is packed, row i of the panel lies at
  // i * step; rows <= tile_rows.
  void (*tile)(int rows, Index k, const T* left, const T* panel, Index step, bool add, T* out);
  void (*samples)(const SampleTile<T>& args);
  // out = rho(w); may be in place.
  void (*map_weights)(Index n, const T* w, Weights<T> map, T* out);
  void (*tile_taps)(const TileTaps<T>& args);
  void (*depthwise)(const Depthwise<T>& args);
  void (*depthwise_line)(const DepthwiseLine<T>& args);
  // How many of x are not zero, in the part that is taken (as in pack_left); NaN is not zero, -0 is.
  Index (*nonzeros)(Index k, const T* x, int part);
  // These, in order, and first_step + where they stand. Returns their number; writes up to kSpare entries beyond it.
  Index (*compress)(Index k, const T* x, int part, Index first_step, T* values, std::uint16_t* steps);
  void (*list_rows)(const ListRows<T>& args);
  void (*group_rows)(const GroupRows<T>& args);
  // Of two rows: what is not zero in one of them, x's value and y's by turns. Up to 2 * kSpare values beyond.
  Index (*compress_pair)(Index k, const T* x, const T* y, T* values, std::uint16_t* steps);
  void (*list_pairs)(const Lists<T>& args);
  // left(k, rows) from x(rows, k): part 0 as it is, +1 positive part, -1 negative part.
  // Writes up to kSpare entries beyond the end.
  void (*pack_left)(int rows, Index k, const T* x, Index stride, int part, T* left);
  // panel(k, tile_cols) of rho(W)^T: w(cols, k), one weight row a column of the panel, whose rows are `step` apart.
  // Returns whether one is not finite.
  bool (*pack_forward)(int cols, Index k, const T* w, Index stride, Weights<T> map, T* panel, Index step);
  // panel(k, tile_cols) of rho(W): w(k, cols).
  bool (*pack_backward)(int cols, Index k, const T* w, Index stride, Weights<T> map, T* panel, Index step);

  RowProducts<T, T> rows;

  void (*accumulate)(const Accumulate<T>& args);
  void (*shares)(const SharesOfRows<T>& args);
  Index (*left_over)(const LeftOver<T>& args);
  void (*finish)(const Finish<T>& args);
  // Where one of (first + second) / 2 and (first - second) / 2 is less than 1/64 of `second` >= 0, a cancellation: at
  // most `most` of i * cols + j are written down, their number returned.
  Index (*cancelled)(Index rows, Index cols, const T* first, const T* second, Index stride, Index most, Index* at);
  // out = the part of x: +1 positive, -1 negative, 0 the magnitude.
  void (*part_of)(Index n, const T* x, int part, T* out);

  // Windows of a pool, count >= 1 rows of n: out = their maximum, or their sum / divisor.
  void (*pool_rows)(int count, const T* const* rows_at, Index n, bool max, T divisor, T* out);
  // to_w = or += r where row w has the maximum, the first of ties, and 0 elsewhere.
  void (*to_winner)(int count, const T* const* rows_at, Index n, const T* r, bool add, T* const* to);

  // y = f(x), which may be the same array.
  void (*function)(Function f, Index n, const T* x, T* y);

  // Attention: z = s + m (-inf where m is the largest number; m may be null), returns the largest, or 0 where all are
  // -inf; z becomes exp(z - most), returns the sum; see TaylorOfScores.
  T (*masked_scores)(Index n, const T* s, const T* m, T* z);
  T (*powers)(Index n, T most, T* z);
  void (*taylor_of_scores)(const TaylorOfScores<T>& args);

  double (*sum)(Index n, const T* x);
  double (*dot)(Index n, const T* x, const T* y);
  int (*scan)(Index n, const T* x);  // kHasNegative | kNotFinite
  double (*peak)(Index rounds, T* sink);
};

// A number in bfloat16: the upper half of a float's bits.
struct Bfloat16 {
  std::uint16_t bits;
};

// Products with operands in bfloat16, sums in float. Where they are packed, a word of two steps of the reduction lies
// in a float's place, the first step in its lower half; a last step without a second one has zero beside it.
struct ListQuads;  // quads.hpp
// What a processor's instruction does, if it has one. As in Table and QuadTable, with words in place of steps.
struct Bfloat16Products {
  const char* name;  // the processor's instruction, or "emulated"
  void (*tile)(int rows, Index words, const float* left, const float* panel, bool add, float* out);
  void (*tile_taps)(const TileTaps<float>& args);
  void (*list_rows)(const ListRows<float>& args);
  void (*list_pairs)(const Lists<float>& args);
  void (*list_quads)(const ListQuads& args);  // null where there are no kernels of quads
};
inline constexpr int kSquaredRows = 8;
struct Bfloat16Table : Bfloat16Products {
  // to(words, n) from x(k, n), rounded: NaN stays NaN, denormals become zero. Word p has the steps order[2 p] and
  // order[2 p + 1], or, where order is null, 2 p and 2 p + 1 and may be in place; a step that is not there is zero.
  void (*join_rows)(Index words, Index n, Index k, const float* x, const std::int32_t* order, float* to);
  // words((n + 1) / 2) from x(n).
  void (*join)(Index n, const float* x, float* words);
  // The same rounding, as floats. May be in place.
  void (*round)(Index n, const float* x, float* y);
  // The lists of 1, 2 or 4 rows (4: where there are kernels of quads), of the words that are not zero in one of them.
  Index (*compress)(int rows, Index k, const float* const* x, float* words, std::uint16_t* steps);
  RowProducts<float, Bfloat16> rows;
  // kSquaredRows rows at once: c[k] += sum_r s[r] w_r[k]^2, and of those that come then z[r] += sum_k next_r[k]^2. Null
  // where it was not measured.
  void (*add_squares)(const Bfloat16* const* w, const Bfloat16* const* next, Index k, const float* s, float* c,
                      float* z);
};

struct Isa {
  const char* name;
  Table<float> f32;
  Table<double> f64;
  Bfloat16Table bfloat16;
};

}  // namespace pylrp::kernels
