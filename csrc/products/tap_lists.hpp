// The source pixels of a block of a convolution's rows as lists of what is not zero (lists.hpp), of each pixel or of
// two. Two rows, mostly pixels side by side, share a list for each tap where they are zero in much the same channels: a
// weight that was read serves both. Pixels are compressed once for all taps that meet them; a task does that for its
// own rows, or all together for tasks that take the same rows.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/buffer.hpp"
#include "products/lists.hpp"
#include "products/taps.hpp"

namespace pylrp {

// The pixels, or pairs of pixels, that the rows of a block meet, numbered, and the number of each row's, or pair's of
// rows, for each tap.
class TapPixels {
 public:
  TapPixels(const Block& block, Index together);
  struct Pixel {
    Index sample, pixel;  // -1, -1: outside
  };
  Index together() const { return together_; }  // rows that share a list: 1 or 2
  // `together` of each list, one after the other.
  const std::vector<Pixel>& pixels() const { return pixels_; }
  Index lists() const { return static_cast<Index>(pixels_.size()) / together_; }
  Index rows() const { return rows_; }  // or pairs of them
  const std::int32_t* numbers(std::size_t tap) const { return numbers_.data() + tap * static_cast<std::size_t>(rows_); }

 private:
  Index together_, rows_;
  std::vector<Pixel> pixels_;
  std::vector<std::int32_t> numbers_;  // (taps, rows or pairs)
};

// Lists (parts of the channels, lists of the pixels), to be made part by part.
template <class T>
class TapLists {
 public:
  // negative: of an image that negative weights meet (kernels/signs.hpp), or null.
  TapLists(const TapPixels& pixels, const Image<T>& image, const T* negative, Index channels,
           const Operands<T>& operands, Workspace* workspace);
  Index steps() const { return steps_of_list_; }  // of the reduction that a list covers
  Index together() const { return together_; }
  bool by_sign() const { return negative_ != nullptr; }
  Index panels() const;  // at most, side by side
  Index parts() const { return list_parts(channels_, steps_of_list_); }
  void make(Index part);
  double share() const;  // of the entries that are in lists
  // What the lists of a part add to the sums of rows [begin, end), or pairs of them, some panels side by side: list_of
  // each row, or pair; sums of the first of all; signs of the panels, where the lists are by sign.
  void multiply(Index part, Index begin, Index end, const std::int32_t* list_of, Index panels, const T* const* panel,
                const std::uint16_t* signs, bool add, T* const* sums) const;

 private:
  const TapPixels& pixels_;
  Image<T> image_;
  const T* negative_;
  Operands<T> operands_;
  Index channels_, together_, steps_of_list_, count_, size_;  // size: places of a part
  // Of a part one list behind the other, the values of two rows, or of two images, by turns.
  Buffer<T> values_;
  Buffer<std::uint16_t> steps_;
  std::vector<Index> begins_;  // (parts, lists and the end)
};

// How a block of rows reads the images of some products: each as lists, or by tiles.
template <class T>
class TapLeft {
 public:
  // Decides, for so many panels of a group; the lists are still to be made: make(i) for each of parts().
  // workspace: of the call, where another thread may be the one that gives the memory back; else null.
  TapLeft(const TapWork<T>& work, const Block& block, Index group, Index panels, Workspace* workspace);
  Index parts() const;
  void make(Index i);
  void count_work() const;
  // Of a product; null: by tiles.
  const TapLists<T>* lists(Index product) const { return of_[static_cast<std::size_t>(product)]; }
  const TapPixels& pixels(const TapLists<T>& lists) const { return *pixels_[lists.together() - 1]; }

 private:
  std::unique_ptr<TapPixels> pixels_[2];  // that lists of one pixel and of two need
  std::vector<std::unique_ptr<TapLists<T>>> made_;
  std::vector<const TapLists<T>*> of_;    // each product
  std::uint64_t by_tiles_ = 0, entries_;  // images that are read so; multiply-adds with one
};

// How many rows share a list: 0, by tiles; 1; 2.
template <class T>
Index choose_lists(const Block& block, const Image<T>& image, Index panels, Index channels,
                   const Operands<T>& operands);

// Of an image's entries, from some pairs of rows of a block.
template <class T>
LeftShares left_shares(const Block& block, const Image<T>& image, Index channels,
                       const Operands<T>& operands = Operands<T>());

// Whether zeros are worth counting.
template <class T>
bool tap_zeros_count(Index rows, Index panels, Index taps, Index channels);

}  // namespace pylrp
