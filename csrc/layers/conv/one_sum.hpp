// Single entries of a rule's sums, where all of a sum are not worth computing.
#pragma once

#include <vector>

#include "kernels/dispatch.hpp"
#include "layers/conv/steps.hpp"

namespace pylrp {

// body(map, tap of the kernel, channels of a pixel) for all that a sum reads in a row of a walk.
template <class T, class Body>
void each_source_of(const Sum& sum, const ConvWeights<T>& w, const InputPartImages<T>& images, const Walk& walk,
                    Index row, Index column, Body body) {
  const Block block(walk, row, row + 1);
  const Index size = w.shape.group_in(), group = column / w.shape.group_out();
  const std::size_t taps = walk.taps.size();
  std::vector<const T*> at(taps);
  Buffer<T> own;
  const T* const nothing = zeros<T>(size, &own);
  for (const ProductTerm& tap : sum) {
    Image<T> image = images.image(tap.part);
    image.data += group * size;
    block.sources(image, 0, 1, 0, taps, nothing, at.data());
    for (std::size_t t = 0; t < taps; ++t) {
      body(tap.map, walk.taps[t].kernel, at[t]);
    }
  }
}

template <class T>
T one_sum(const Sum& sum, const ConvWeights<T>& w, const InputPartImages<T>& images, const Walk& walk, Index row,
          Index column) {
  T all = 0;
  each_source_of(sum, w, images, walk, row, column, [&](const WeightMap& map, Index tap, const T* x) {
    const T* const weights = w.at(column, tap, 0);
    kernels::table<T>().rows.dot(1, &weights, w.shape.group_in(), weights_of<T>(map), x, &all, false);
  });
  return all;
}

}  // namespace pylrp
