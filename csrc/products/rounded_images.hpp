// The images that a convolution's products read, rounded to bfloat16 where that was asked for: each image once for all
// walks, (samples, pixels, groups, places of a group's channels).
#pragma once

#include <vector>

#include "products/taps.hpp"

namespace pylrp {

template <class T>
class RoundedImages {
 public:
  // Where the operands are not rounded, products() are those of the work, as they are.
  RoundedImages(const Operands<T>& operands, const TapWork<T>& work, const Threads& threads);
  const std::vector<TapProduct<T>>& products() const { return products_; }

 private:
  Image<T> rounded(const Operands<T>& operands, const TapWork<T>& work, const Image<T>& image, const Threads& threads);
  std::vector<TapProduct<T>> products_;
  std::vector<Buffer<T>> memory_;
};

}  // namespace pylrp
