// The source pixels of a block of a convolution's rows as lists of what is not zero (lists.hpp): a pixel is compressed
// once for all taps that meet it. A task makes them for its own rows.
#pragma once

#include <vector>

#include "base/buffer.hpp"
#include "products/lists.hpp"
#include "products/taps.hpp"

namespace pylrp {

// The pixels that the rows of a block meet, numbered, and the number of each row's for each tap.
class TapPixels {
 public:
  explicit TapPixels(const Block& block);
  struct Pixel {
    Index sample, pixel;
  };
  const std::vector<Pixel>& pixels() const { return pixels_; }
  // Of each row; pixels().size() where the source is outside.
  const std::int32_t* numbers(std::size_t tap) const { return numbers_.data() + tap * rows_; }

 private:
  std::size_t rows_;
  std::vector<Pixel> pixels_;
  std::vector<std::int32_t> numbers_;  // (taps, rows)
};

// Lists (parts of the channels, pixels and an empty one).
template <class T>
class TapLists {
 public:
  TapLists(const TapPixels& pixels, const Image<T>& image, Index channels);
  Lists<T> part(Index part) const;
  Index kept() const { return kept_; }  // entries that are not zero

 private:
  Index count_, kept_ = 0;
  Buffer<T> values_;
  Buffer<std::uint16_t> steps_;
  Buffer<std::int32_t> counts_;
};

// The share of an image's entries that are not zero, from some rows of a block.
template <class T>
double share_of_rows(const Block& block, const Image<T>& image, Index channels);

}  // namespace pylrp
