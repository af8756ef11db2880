// Included by each file of a processor's instruction for bfloat16, which names it, the width of a vector and the height
// of a tile: those of the instruction set that it goes with. See kernels.inl.
#include "kernels/quads.hpp"
#include "kernels/table.hpp"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace pylrp::kernels {
namespace {
#include "kernels/vec.inl"
// (order matters)
#include "kernels/bfloat16_tiles.inl"
#include "kernels/lists.inl"
// (both have loops that words take)
#include "kernels/quads.inl"
#include "kernels/word_lists.inl"
}  // namespace

extern const Bfloat16Products PYLRP_BFLOAT16_SYMBOL;
const Bfloat16Products PYLRP_BFLOAT16_SYMBOL = {
    PYLRP_BFLOAT16_NAME,           tile_words<PYLRP_TILE_ROWS>,    tile_taps_words<PYLRP_TILE_ROWS>,
    list_rows<float, WordEntries>, list_pairs<float, WordEntries>, list_quads_of_words};

}  // namespace pylrp::kernels
