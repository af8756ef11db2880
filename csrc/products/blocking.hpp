// How products are cut into blocks and tasks, and from how much work on more threads take part. Where a measurement is
// on record it is named (docs/architecture.md); the others came with the loops around them and were not measured alone.
#pragma once

#include "base/view.hpp"

namespace pylrp {

// Steps of the reduction that are packed and multiplied at a time: a panel's piece stays in the L1 cache. Dense, 4096 x
// 4096, batch 256, AVX-512, one thread: 0.86 of the FMA peak with 256; 0.82 with 384 and 0.81 with 512, slabs of 4.
inline constexpr Index kReductionBlock = 256;
// Packed panels of weights that all tiles of rows run over: they stay in the L2 cache. The same product: 0.79, 0.81 and
// 0.86 of the peak with 2, 4 and 8.
inline constexpr Index kSlabPanels = 8;
// The same where rows are lists: 784-1000-1000-10, batch 1024, one thread, 43.5, 39.4 and 42.4 ms with 8, 4 and 2;
// 4096-4096-4096-1000, batch 256, 180, 176 and 191.
inline constexpr Index kListSlabPanels = 4;

// Rows that lie a multiple of 4 KB apart meet in one set of the L1 cache, and in few of the L2 cache.
template <class T>
constexpr bool meet_in_few_sets(Index stride) {
  return stride * Index{sizeof(T)} % 4096 == 0;
}
// Tiles that read weights of the backward pass where they stand even if those meet in few sets of the caches: packing
// takes longer.
inline constexpr Index kTilesInPlace = 3;
// Products whose samples lie along the lanes: steps of the reduction at a time, whose samples stay in the L2 cache. 384
// x 1536, 128 samples, AVX-512, one thread, weights from memory: 108 of 117 GFLOP/s.
inline constexpr Index kSampleBlock = 384;
// Samples at most: with more of them packing weights costs less than lanes that stay empty. 768 x 3072 (two ways, old
// and new, GFLOP/s): 128 samples 93 and 97, 197 samples 99 and 92.
inline constexpr Index kMostSamplesInLanes = 192;

// Rows that go the same way, as tiles or as lists of what is not zero: a panel's rows that were read into the L1 cache
// serve all of them. Not measured alone.
inline constexpr Index kBandRows = 96;

// Multiplications from which a dense layer, or a convolution, is shared out: with less the other threads come too late.
// Not measured alone. (kWorthTeam in base/parallel.hpp is the limit for a whole call.)
inline constexpr Index kMinProductsForThreadsDense = Index{1} << 21;
inline constexpr Index kMinProductsForThreadsConv = Index{1} << 19;
// Of depthwise ones, which wait for memory: 14 x 14 pixels, 240 channels, 3 x 3 (0.4 million), relevance on one thread:
// 186 us.
inline constexpr Index kMinProductsForThreadsDepthwise = Index{1} << 17;
// The same for passes that are memory-bound, in weights: those over weights by columns. Not measured alone.
inline constexpr Index kMinWeightsForThreads = Index{1} << 20;
// And for packing weights. Not measured alone.
inline constexpr Index kMinWeightsToPackInParallel = Index{1} << 16;

// Passes over weight rows for few samples: a chunk of rows has accumulators of its own, added up in order. Fewer
// weights than this are not worth another chunk. Not measured alone.
inline constexpr Index kMinWeightsOfChunk = Index{1} << 18;
inline constexpr Index kMaxChunks = 16;

// Convolutions: rows of an image that a task takes, and tasks that are wanted at least. Not measured alone.
inline constexpr Index kBlockRows = 224;
inline constexpr Index kMinConvTasks = 16;
inline constexpr Index kLeastBlockRows = 160;  // before panels of a block go to several tasks
// With few rows a task packs its own panel: 14 x 14 and 7 x 7 images, where the weights are larger than the images.
// ResNet50's explanation: 347 to 321 ms on one thread, 190 to 164 on two. Rows of such a task at most; tasks that are
// wanted at least; how often the same weights may be packed; rows that are worth packing once more.
inline constexpr Index kOwnRows = 800;
inline constexpr Index kMinOwnTasks = 6;
inline constexpr Index kMaxPacks = 3;
inline constexpr Index kMinListTasks = 6;  // more panels a task, for lists, as long as there are so many tasks
inline constexpr Index kMinRowsOfPack = 48;

}  // namespace pylrp
