// The product that a convolution is, in both directions: for each position of a walk, the sum over its taps of a source
// pixel's channels times a matrix of weights. The micro-kernel takes rows by pointer: no matrix of patches is made.
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "base/buffer.hpp"
#include "base/parallel.hpp"
#include "kernels/table.hpp"
#include "layers/geometry.hpp"

namespace pylrp {

// Samples of an image, channels last. A constant image has strides 0.
template <class T>
struct Image {
  const T* data = nullptr;
  Index sample_stride = 0, pixel_stride = 0;
};

// Rows of a walk over several samples that lie evenly spaced in the target.
struct Run {
  Index first, count;  // rows, counted from the block's first
  Index sample;
  Index pixel;  // of the first row in the target image
  Index step;   // pixels from row to row
};

// Rows [begin, end) of a walk over `samples` samples, with what finding their sources needs.
class Block {
 public:
  Block(const Walk& walk, Index begin, Index end);
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  const Walk& walk() const { return walk_; }
  const std::vector<Run>& runs() const { return runs_; }
  Index begin() const { return begin_; }
  Index rows() const { return static_cast<Index>(at_.size()); }
  Index first_sample() const { return at_.front().sample; }

  // to[t * rows + i]: where row `first + i` finds its source for tap `tap + t`; zeros where that is outside.
  template <class T>
  void sources(const Image<T>& image, Index first, Index rows, std::size_t tap, std::size_t taps, const T* zeros,
               const T** to) const;

 private:
  struct At {
    Index sample, pixel;  // pixel of the source where the tap's offset is 0
    Axes position;        // scale * row
    bool inside;          // for every tap
  };
  static thread_local std::vector<At> spare;

  const Walk& walk_;
  Index begin_;
  std::vector<Index> delta_;  // of each tap, in source pixels
  std::vector<At> at_;
  std::vector<Run> runs_;
};

inline constexpr Index kBlockRows = 224;  // of a walk, a task

template <class T>
struct TapProduct {
  Image<T> image;
  kernels::Weights<T> map;
  Index output;  // products with the same output, one after the other, are summed
};

// The sums of a block: out(output, panel) is (rows of the block, tile_cols).
template <class T>
using SumsOf = std::function<const T*(Index output)>;

// Weights as panels: pack(group, kernel tap, first column, columns, map, to) writes (channels, tile_cols).
template <class T>
using PackTap = std::function<void(Index group, Index tap, Index column, Index columns, kernels::Weights<T>, T* to)>;

// All products over all samples. Within a group, `channels` source channels (from group * channels on) make `columns`
// target channels. done(task, block, first target channel, columns, sums) is called when those sums are complete.
template <class T>
struct TapWork {
  const Walk* walk;
  Index samples, groups, channels, columns;
  std::vector<TapProduct<T>> products;
  Index outputs;
  PackTap<T> pack;
  std::function<void(Index task, const Block&, Index column, Index columns, const SumsOf<T>&)> done;

  Index rows() const { return samples * walk->count(); }
  Index blocks() const { return (rows() + kBlockRows - 1) / kBlockRows; }
  Index tasks() const { return blocks() * groups * splits(); }
  // Panels go to several tasks where there are few blocks. Independent of the number of threads: so are the sums.
  Index splits() const;
  Index panels() const;
};
template <class T>
void multiply_taps(const TapWork<T>& work, const Threads& threads);

// Zeros for what lies outside, at least `count`.
template <class T>
const T* zeros(Index count, Buffer<T>* own);

template <class T>
void Block::sources(const Image<T>& image, Index first, Index rows, std::size_t tap, std::size_t taps, const T* zeros,
                    const T** to) const {
  for (std::size_t t = tap; t < tap + taps; ++t) {
    const Axes& offset = walk_.taps[t].offset;
    for (Index i = first; i < first + rows; ++i, ++to) {
      const At& at = at_[static_cast<std::size_t>(i)];
      bool inside = at.inside;
      if (!inside) {
        inside = true;
        for (std::size_t a = 0; a < 3; ++a) {
          const Index x = at.position[a] + offset[a];
          inside = inside && x >= 0 && x < walk_.source[a];
        }
      }
      *to = inside ? image.data + at.sample * image.sample_stride + (at.pixel + delta_[t]) * image.pixel_stride : zeros;
    }
  }
}

}  // namespace pylrp
