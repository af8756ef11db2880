// The images that a convolution's products read, rounded to bfloat16 where that was asked for: each image once for all
// walks, (samples, pixels, groups, places of a group's channels). A word is left out of a list where both of its
// channels are zero: words take channels together that are zero about as often, by a sample of the pixels, which also
// are those most alike (a trained VGG16: 38 to 78 % of the words are left where neighbouring channels made 46 to 95 %).
#pragma once

#include <cstdint>
#include <vector>

#include "products/taps.hpp"

namespace pylrp {

struct ImageSizes {
  Index samples, pixels, groups, places, steps;  // places and channels of a group
};

template <class T>
class RoundedImages {
 public:
  // Where the operands are not rounded, products() are those given, as they are. in_order: lists may read words.
  RoundedImages(const Operands<T>& operands, const std::vector<TapProduct<T>>& products, const ImageSizes& sizes,
                bool in_order, const Threads& threads);
  const std::vector<TapProduct<T>>& products() const { return products_; }

 private:
  void round(TapProduct<T>* product, bool in_order, const Threads& threads);
  // Of one group's channels; writes nothing and returns false where it would not leave fewer words.
  bool order_of(const Image<T>& image, std::int32_t* order) const;
  Operands<T> operands_;
  ImageSizes sizes_;
  std::vector<TapProduct<T>> products_;
  std::vector<Buffer<T>> memory_;
  std::vector<std::vector<std::int32_t>> orders_;
};

}  // namespace pylrp
