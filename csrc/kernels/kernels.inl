// Included once by each isa_*.cpp, which names the instruction set, the width of a vector and the height of a tile.
// All of it has internal linkage and uses no standard library: with weak symbols the linker could keep one
// instruction set's copy for everybody.
#include "kernels/cells.hpp"
#include "kernels/contributions.hpp"
#include "kernels/quads.hpp"
#include "kernels/signs.hpp"
#include "kernels/table.hpp"

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace pylrp::kernels {
namespace {
#include "kernels/vec.inl"
// (order matters: each file builds on the ones before)
#include "kernels/elementwise.inl"
// (alphabetical order would be wrong here)
#include "kernels/bfloat16_tiles.inl"
// (nor here: rows.inl reads weights that are stored so)
#include "kernels/bfloat16.inl"
#include "kernels/contributions.inl"
#include "kernels/depthwise.inl"
#include "kernels/few_rows.inl"
#include "kernels/functions.inl"
#include "kernels/group_lists.inl"
#include "kernels/lists.inl"
#include "kernels/lstm.inl"
#include "kernels/quads.inl"
#include "kernels/rows.inl"
#include "kernels/samples.inl"
#include "kernels/scores.inl"
#include "kernels/signs.inl"
#include "kernels/taps.inl"
#include "kernels/target_contributions.inl"
#include "kernels/tile.inl"
#include "kernels/windows.inl"
// (builds on lists and quads)
#include "kernels/word_lists.inl"

template <class T>
constexpr Table<T> make_table() {
  return {PYLRP_TILE_ROWS, 2 * kLanes<T>,       kSampleParts<T>, kGroupPanels<T>,  tile<T>,
          samples<T>,      map_weights<T>,      tile_taps<T>,    depthwise<T>,     depthwise_line<T>,
          nonzeros<T>,     compress<T>,         list_rows<T>,    group_rows<T>,    compress_pair<T>,
          list_pairs<T>,   pack_left<T>,        pack_forward<T>, pack_backward<T>, {rows_dot<T, T>, rows_axpy<T, T>},
          accumulate<T>,   shares<T>,           left_over<T>,    finish<T>,        cancelled<T>,
          part_of<T>,      pool_rows<T>,        to_winner<T>,    function<T>,      masked_scores<T>,
          powers<T>,       taylor_of_scores<T>, sum<T>,          dot<T>,           scan<T>,
          peak<T>};
}
constexpr Bfloat16Table make_bfloat16_table() {
  return {{"emulated", tile_words<PYLRP_TILE_ROWS>, tile_taps_words<PYLRP_TILE_ROWS>, list_rows<float, WordEntries>,
           list_pairs<float, WordEntries>, list_quads_of_words},
          join_rows,
          join,
          round_to_bfloat16,
          compress_words,
          {rows_dot<float, Bfloat16>, rows_axpy<float, Bfloat16>},
          add_squares};
}
}  // namespace

#define PYLRP_JOINED_(a, b) a##b
#define PYLRP_JOINED(a, b) PYLRP_JOINED_(a, b)
#define PYLRP_CELLS_SYMBOL PYLRP_JOINED(cells_of_, PYLRP_ISA_SYMBOL)
#define PYLRP_CONTRIBUTIONS_SYMBOL PYLRP_JOINED(contributions_of_, PYLRP_ISA_SYMBOL)
#define PYLRP_QUADS_SYMBOL PYLRP_JOINED(quads_of_, PYLRP_ISA_SYMBOL)
#define PYLRP_SIGNS_SYMBOL PYLRP_JOINED(signs_of_, PYLRP_ISA_SYMBOL)

// Defined here, declared in dispatch.cpp, cells.cpp, contributions.cpp, quads.cpp and signs.cpp.
extern const CellIsa PYLRP_CELLS_SYMBOL;
const CellIsa PYLRP_CELLS_SYMBOL = {
    {few_rows<float>, lstm_step<float>, lstm_back<float>, state_back<float>, slopes<float>},
    {few_rows<double>, lstm_step<double>, lstm_back<double>, state_back<double>, slopes<double>}};
#if defined(__AVX2__)
extern const ContributionTable PYLRP_CONTRIBUTIONS_SYMBOL;
const ContributionTable PYLRP_CONTRIBUTIONS_SYMBOL = {kContributionVectors * kLanes<float>,
                                                      kContributionsApart,
                                                      sum_of_contributions,
                                                      send_of_contributions,
                                                      send_of_targets,
                                                      compress_targets};
extern const QuadTable PYLRP_QUADS_SYMBOL;
const QuadTable PYLRP_QUADS_SYMBOL = {compress_quad<false>, list_quads<>, choose_of_four, place_of_four};
#endif
#if defined(__AVX512F__)
extern const SignTable PYLRP_SIGNS_SYMBOL;
const SignTable PYLRP_SIGNS_SYMBOL = {read_signs, compress_signs, list_signs};
#endif
extern const Isa PYLRP_ISA_SYMBOL;
const Isa PYLRP_ISA_SYMBOL = {PYLRP_ISA_NAME, make_table<float>(), make_table<double>(), make_bfloat16_table()};

}  // namespace pylrp::kernels
