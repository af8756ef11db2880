// The product that a convolution is, in both directions: for each position of a walk, the sum over its taps of a source
// pixel's channels times a matrix of weights. The micro-kernel takes rows by pointer: no matrix of patches is made.
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "base/buffer.hpp"
#include "base/parallel.hpp"
#include "kernels/table.hpp"
#include "products/blocking.hpp"
#include "products/geometry.hpp"
#include "products/operands.hpp"

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
  Index pixel;      // of the first row in the target image
  Index step;       // pixels from row to row
  Index every = 1;  // rows of the block from one to the next
};

// Samples that are zero in much the same places, as several targets of the same inputs are: i and i + apart, of the
// first 2 * apart, the next ones, and so on. Rows lie in pairs there, the same position of both, one behind the other;
// what is left over, behind them. 0: none.
struct SamplePairs {
  Index apart = 0, samples = 0;
  Index count() const { return apart == 0 ? 0 : samples / (2 * apart) * apart; }
  Index sample(Index pair, Index half) const { return (2 * (pair / apart) + half) * apart + pair % apart; }
};

// Rows [begin, end) of a walk over several samples.
class Rows {
 public:
  Rows(const Walk& walk, Index begin, Index end, const SamplePairs& pairs = {});
  const Walk& walk() const { return walk_; }
  const std::vector<Run>& runs() const { return runs_; }
  Index begin() const { return begin_; }
  Index count() const { return count_; }
  Index first_sample() const { return runs_.front().sample; }

 private:
  const Walk& walk_;
  Index begin_, count_;
  std::vector<Run> runs_;
};

// The same with what finding the source of each row needs.
class Block : public Rows {
 public:
  Block(const Walk& walk, Index begin, Index end, const SamplePairs& pairs = {});
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  // body(inside, sample, pixel) for each row's source, tap by tap.
  template <class Body>
  void each_source(Index first, Index rows, std::size_t tap, std::size_t taps, Body body) const;
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

  std::vector<Index> delta_;  // of each tap, in source pixels
  std::vector<At> at_;
};

// Where row `index` of one sample's walk lies along the axes; next() steps to the row behind.
struct Place {
  Index sample;
  Axes row;
  Place(const Walk& walk, Index index);
  void next(const Walk& walk);
};

template <class T>
struct TapProduct {
  Image<T> image;
  kernels::Weights<T> map;
  Index output;                 // products with the same output, one after the other, are summed
  const T* negative = nullptr;  // of an image like the other, which negative weights meet (tap_signs.hpp); or none
  // The channels that the image's words have, two each, (groups, places, 2); null: one after the other
  // (rounded_images.hpp).
  const std::int32_t* order = nullptr;
};

// The sums of a block: out(output, panel) is (rows of the block, tile_cols).
template <class T>
using SumsOf = std::function<const T*(Index output)>;

// Where a panel is cut from a tap's weights: some of its channels by some of its columns.
struct Cut {
  Index group, tap, channel, channels, column, columns;
};
// pack(cut, map, to) writes (channels, tile_cols); returns whether one is not finite.
template <class T>
using PackTap = std::function<bool(const Cut& cut, kernels::Weights<T>, T* to)>;

// All products over all samples. Within a group, `channels` source channels (from group * channels on) make `columns`
// target channels. Where the operands are rounded, the images are (rounded_images.hpp), and `channels` counts their
// places.
// done(task, block, first target channel, columns, sums) is called when those sums are complete.
template <class T>
struct TapWork {
  const Walk* walk;
  Index samples, groups, channels, columns;
  std::vector<TapProduct<T>> products;
  Index outputs;
  PackTap<T> pack;
  std::function<void(Index task, const Rows&, Index column, Index columns, const SumsOf<T>&)> done;
  Operands<T> operands = Operands<T>();
  Index steps = 0;                                              // channels as the weights count them
  std::function<Matrix<const T>(const Cut& cut)> weights = {};  // where a cut comes from, to fetch it; or none
  Index apart = 0;                                              // of SamplePairs

  Index rows() const { return samples * walk->count(); }
  SamplePairs pairs() const { return {apart, samples}; }
  Index blocks() const;
  Index tasks() const { return blocks() * groups * splits(); }
  // Panels go to several tasks where there are few blocks. Independent of the number of threads: so are the sums.
  Index splits() const;
  Index panels() const;
  // Few rows: a task packs the panel it needs itself, piece by piece in its own cache, and takes it over all rows, or,
  // where there are few panels, over some of them.
  bool packs_in_tasks() const { return own_blocks() > 0; }
  Index own_panels() const;  // how many a task takes then

 private:
  Index own_blocks() const;  // 0: there are too many rows
};
template <class T>
void multiply_taps(const TapWork<T>& work, const Threads& threads);

// Packs places [first, first + places) of some channels' weights: fill(channel, channels, x) writes (channels, columns)
// as numbers. order: the channels of words (TapProduct); or null.
template <class T, class Fill>
void pack_words_or_numbers(const Operands<T>& operands, const std::int32_t* order, Index first, Index places,
                           Index steps, Index columns, T* to, Fill fill) {
  if (order == nullptr) {
    const Index channel = operands.step(first), channels = operands.steps(first, places, steps);
    return operands.pack(channels, columns, to, [&](T* x) { fill(channel, channels, x); });
  }
  std::vector<std::int32_t> here(order + 2 * first, order + 2 * (first + places));
  const auto [least, most] = std::minmax_element(here.begin(), here.end());
  const std::int32_t channel = *least;
  const Index channels = std::min<Index>(*most + 1, steps) - channel;
  for (std::int32_t& step : here) {
    step -= channel;
  }
  operands.pack_in_order(channels, columns, places, here.data(), to, [&](T* x) { fill(channel, channels, x); });
}

// Zeros for what lies outside, at least `count`.
template <class T>
const T* zeros(Index count, Buffer<T>* own);

template <class Body>
void Block::each_source(Index first, Index rows, std::size_t tap, std::size_t taps, Body body) const {
  for (std::size_t t = tap; t < tap + taps; ++t) {
    const Axes& offset = walk().taps[t].offset;
    for (Index i = first; i < first + rows; ++i) {
      const At& at = at_[static_cast<std::size_t>(i)];
      bool inside = at.inside;
      if (!inside) {
        inside = true;
        for (std::size_t a = 0; a < 3; ++a) {
          const Index x = at.position[a] + offset[a];
          inside = inside && x >= 0 && x < walk().source[a];
        }
      }
      body(inside, at.sample, at.pixel + delta_[t]);
    }
  }
}

template <class T>
void Block::sources(const Image<T>& image, Index first, Index rows, std::size_t tap, std::size_t taps, const T* zeros,
                    const T** to) const {
  each_source(first, rows, tap, taps, [&](bool inside, Index sample, Index pixel) {
    *to++ = inside ? image.data + sample * image.sample_stride + pixel * image.pixel_stride : zeros;
  });
}

}  // namespace pylrp
