// What the sums of a convolution read, and its second sum found without a product: conv.cpp's own.
#pragma once

#include <algorithm>
#include <atomic>

#include "kernels/dispatch.hpp"
#include "layers/conv/conv.hpp"
#include "rules/kernel_args.hpp"

namespace pylrp {

// What a term reads, as images; a+ and a- are made where they are asked for.
template <class T>
class Parts {
 public:
  Parts(const ConvWeights<T>& w, Matrix<const T> input, const Bounds<T>& bounds, const LoweredRule& rule,
        const Threads& threads)
      : channels_(w.source_channels()), size_(w.source_size()), input_(input), bounds_(bounds) {
    for (const Sum& sum : rule.sums) {
      for (const Tap& tap : sum) {
        if (tap.part == Part::kOne && ones_.data() == nullptr) {
          ones_.reset(channels_);
          std::fill_n(ones_.data(), channels_, T(1));
        }
        for (const Part part : {Part::kPositive, Part::kNegative}) {
          Buffer<T>& half = part == Part::kPositive ? positive_ : negative_;
          if (tap.part == part && half.data() == nullptr) {
            half.reset(input.rows * size_);
            constexpr Index kPiece = 1 << 14;
            const Index pieces = (size_ + kPiece - 1) / kPiece;
            parallel_for(input.rows * pieces, threads, [&](Index task) {
              const Index i = task / pieces, first = task % pieces * kPiece;
              kernels::table<T>().part_of(std::min(kPiece, size_ - first), input.row(i) + first,
                                          part == Part::kPositive ? 1 : -1, half.data() + i * size_ + first);
            });
          }
        }
      }
    }
  }
  Image<T> image(Part part) const {
    switch (part) {
      case Part::kInput:
        return {input_.data, input_.stride, channels_};
      case Part::kPositive:
        return {positive_.data(), size_, channels_};
      case Part::kNegative:
        return {negative_.data(), size_, channels_};
      case Part::kOne:
        return {ones_.data(), 0, 0};
      case Part::kLow:
        return {bounds_.low, 0, channels_};
      case Part::kHigh:
        return {bounds_.high, 0, channels_};
      case Part::kMagnitude:
        break;
    }
    return {};
  }

 private:
  Index channels_, size_;
  Matrix<const T> input_;
  Bounds<T> bounds_;
  Buffer<T> positive_, negative_, ones_;
};

// The second sum of a rule as what the first leaves of the output; what cancels there is computed after all.
template <class T>
class RestOfOutput {
 public:
  RestOfOutput(const ConvWeights<T>& w, const LoweredRule& rule, const Parts<T>& parts, Matrix<const T> output)
      : w_(w), parts_(parts), output_(output), limit_(output.rows * output.cols / 64 + 64) {
    if (rule.sums.size() > 1) {
      second_ = rule.sums[1];
    }
  }
  // Of the columns of a run: to = output - bias - first.
  void subtract(const Rows& block, const Run& run, Index column, Index columns, const T* first, Index stride, T* to) {
    const Index channels = w_.target_channels();
    std::vector<Index> doubtful(static_cast<std::size_t>(run.count * columns));
    const Index count = kernels::table<T>().rest(
        run.count, columns, output_.row(run.sample) + run.pixel * channels + column, run.step * channels,
        w_.bias ? w_.bias + column : nullptr, first, stride, to, stride, doubtful.data());
    doubtful.resize(static_cast<std::size_t>(count));
    // Where nothing but the bias is there, as on a black background, nothing is left.
    Index known = -1;
    bool empty = false;
    const auto nothing_left = [&](Index entry) {
      const Index row = entry / columns, at = row * stride + entry % columns;
      if (first[at] != 0 || to[at] != 0) {
        return false;
      }
      if (row != known) {
        known = row;
        empty = is_empty(block.walk(), block.begin() + run.first + row, column);
      }
      return empty;
    };
    doubtful.erase(std::remove_if(doubtful.begin(), doubtful.end(), nothing_left), doubtful.end());
    if ((doubtful_ += static_cast<Index>(doubtful.size())) > limit_) {
      return;
    }
    for (const Index entry : doubtful) {
      const Index row = entry / columns, at = entry % columns;
      to[row * stride + at] = compute(block.walk(), block.begin() + run.first + row, column + at);
    }
  }
  // So much cancels that computing the whole sum is less work. Does not depend on who came first.
  bool hopeless() const { return doubtful_ > limit_; }

 private:
  // body(map, tap of the kernel, channels of a pixel) for all that the second sum of a row reads.
  template <class Body>
  void each_source(const Walk& walk, Index row, Index column, Body body) const {
    const Block block(walk, row, row + 1);
    const Index size = w_.shape.group_in(), group = column / w_.shape.group_out();
    const std::size_t taps = walk.taps.size();
    std::vector<const T*> at(taps);
    Buffer<T> own;
    const T* const nothing = zeros<T>(size, &own);
    for (const Tap& tap : second_) {
      Image<T> image = parts_.image(tap.part);
      image.data += group * size;
      block.sources(image, 0, 1, 0, taps, nothing, at.data());
      for (std::size_t t = 0; t < taps; ++t) {
        body(tap.map, walk.taps[t].kernel, at[t]);
      }
    }
  }
  T compute(const Walk& walk, Index row, Index column) const {
    T sum = 0;
    each_source(walk, row, column, [&](const WeightMap& map, Index tap, const T* x) {
      const Index size = w_.shape.group_in();
      const T* const weights = w_.weight + (column * w_.shape.taps() + tap) * size;
      kernels::table<T>().rows_dot(1, &weights, size, weights_of<T>(map), x, &sum, nullptr);
    });
    return sum;
  }
  bool is_empty(const Walk& walk, Index row, Index column) const {
    bool empty = true;
    each_source(walk, row, column, [&](const WeightMap&, Index, const T* x) {
      empty = empty && std::all_of(x, x + w_.shape.group_in(), [](T value) { return value == 0; });
    });
    return empty;
  }

  const ConvWeights<T>& w_;
  const Parts<T>& parts_;
  Matrix<const T> output_;
  Sum second_;
  Index limit_;
  std::atomic<Index> doubtful_{0};
};

}  // namespace pylrp
