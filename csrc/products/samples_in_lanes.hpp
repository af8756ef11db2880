// Products of rows of weights with many samples, for the forward direction of a dense layer (layers/dense/batch.cpp):
// samples lie along the lanes of the vectors, so that weights are read where they stand. matrix_product.hpp has the
// products whose left operands are lists or words of bfloat16; this one has neither.
//
// Samples are packed once for all tasks, (k, samples) for each block of the reduction and group of tile_cols samples.
// A task owns a range of panels of weight rows and takes them in slabs: a block of the samples and the slab's sums stay
// in the L2 cache. The sums are transposed at the end, one panel after the other.
#pragma once

#include <algorithm>
#include <vector>

#include "base/buffer.hpp"
#include "base/parallel.hpp"
#include "base/view.hpp"
#include "kernels/dispatch.hpp"
#include "products/blocking.hpp"
#include "products/lists.hpp"
#include "products/matrix_product.hpp"
#include "products/packed.hpp"

namespace pylrp {

// Samples in groups, one vector or two wide, and blocks of the reduction.
template <class T>
class SamplesInLanes {
 public:
  // fill(operand, sample, samples, first, depth, to) packs (depth, samples).
  template <class Fill>
  SamplesInLanes(Index operands, Index samples, Index reduction, const Threads& threads, Fill fill)
      : samples_(samples), reduction_(reduction) {
    memory_.reset(operands * blocks() * groups() * slot());
    parallel_for(operands * blocks() * groups(), threads, [&](Index i) {
      const Index group = i % groups(), first = i / groups() % blocks() * kSampleBlock;
      fill(i / groups() / blocks(), first_of(group), count_of(group), first, depth_of(first),
           memory_.data() + i * slot());
    });
  }
  Index count() const { return samples_; }
  Index groups() const { return (samples_ + width() - 1) / width(); }
  Index first_of(Index group) const { return group * width(); }
  Index count_of(Index group) const { return std::min(width(), samples_ - first_of(group)); }
  Index depth_of(Index first) const { return std::min(kSampleBlock, reduction_ - first); }
  const T* at(Index operand, Index first, Index group) const {
    return memory_.data() + ((operand * blocks() + first / kSampleBlock) * groups() + group) * slot();
  }

 private:
  static Index width() { return kernels::table<T>().tile_cols; }
  // The kernels read a little beyond, packing writes a little beyond.
  static Index slot() { return (kSampleBlock + 1) * width() + kernels::kSpare; }
  Index blocks() const { return (reduction_ + kSampleBlock - 1) / kSampleBlock; }
  Index samples_, reduction_;
  Buffer<T> memory_;
};

// A panel's rows of weights for a block of the reduction: where they stand, or a copy.
template <class T>
class WeightRows {
 public:
  explicit WeightRows(Matrix<const T> weight) : weight_(weight), copy_(kernels::table<T>().tile_cols * kStride) {}
  // Reads rows [row, row + tile_cols); beyond the last one they are zero.
  void read(Index row, Index first, Index depth, kernels::Weights<T> map) {
    const kernels::Table<T>& kernel = kernels::table<T>();
    const Index rows = std::min<Index>(kernel.tile_cols, weight_.rows - row);
    here_ = {weight_.row(row) + first, kernel.tile_cols, depth, weight_.stride};
    if (map.read != kernels::Read::kPlain || rows < kernel.tile_cols || meet_in_few_sets<T>(weight_.stride)) {
      for (Index i = 0; i < rows; ++i) {
        kernel.map_weights(depth, here_.row(i), map, copy_.data() + i * kStride);
      }
      std::fill(copy_.data() + rows * kStride, copy_.data() + kernel.tile_cols * kStride, T(0));
      here_ = {copy_.data(), kernel.tile_cols, depth, kStride};
    }
  }
  const T* data() const { return here_.data; }
  Index stride() const { return here_.stride; }
  // Rows that will be read, to be fetched; null where there are none.
  const T* ahead(Index row, Index first) const {
    return row < weight_.rows && first < weight_.cols ? weight_.row(row) + first : nullptr;
  }
  Index stride_ahead() const { return weight_.stride; }

 private:
  static constexpr Index kStride = kSampleBlock + kCacheLine / Index{sizeof(T)};
  Matrix<const T> weight_, here_{};
  Buffer<T> copy_;
};

// All products over all panels of weight rows; out(panel, output) is where its (samples, tile_cols) sums go; then comes
// done(panel, 0, samples). Outputs are numbered from 0, products of the same one follow each other.
template <class T, class Out, class Done>
class SampleProducts {
 public:
  SampleProducts(Matrix<const T> weight, const SamplesInLanes<T>& samples, const std::vector<Product<T>>& products,
                 Out out, Done done)
      : weight_(weight), samples_(samples), products_(products), out_(out), done_(done) {
    for (const Product<T>& product : products) {
      outputs_ = std::max(outputs_, product.output + 1);
    }
  }

  void run(const Threads& threads) const {
    const Index width = kernels::table<T>().tile_cols, panels = (weight_.rows + width - 1) / width;
    const Grid grid(panels, 1, threads.count);
    parallel_for(grid.tasks(), threads, [&](Index task) {
      WeightRows<T> rows(weight_);
      const Index slab = std::max<Index>(1, kSlabPanels / outputs_);
      const Buffer<T> sums(slab * outputs_ * samples_.groups() * width * width);
      for (Index p = grid.panel_begin(task); p < grid.panel_end(task); p += slab) {
        multiply({p, std::min(p + slab, grid.panel_end(task))}, &rows, sums.data());
      }
    });
    const Index work = samples_.count() * weight_.cols * panels * width;
    count_left_work({static_cast<std::uint64_t>(work) * products_.size(), 0, 0});
  }

 private:
  void multiply(Range panels, WeightRows<T>* rows, T* sums) const {
    const kernels::Table<T>& kernel = kernels::table<T>();
    const Index width = kernel.tile_cols, size = width * width, groups = samples_.groups();
    const auto sum_of = [&](Index p, Index output, Index group) {
      return sums + (((p - panels.first) * outputs_ + output) * groups + group) * size;
    };
    for (Index first = 0; first < weight_.cols; first += kSampleBlock) {
      const Index depth = samples_.depth_of(first);
      for (Index p = panels.first; p < panels.last; ++p) {
        // The next panel; behind a block's last one the first of the next block.
        const bool last = p + 1 == panels.last && first + depth < weight_.cols;
        const Index next_row = (last ? panels.first : p + 1) * width, next_first = last ? first + depth : first;
        for (std::size_t i = 0; i < products_.size(); ++i) {
          const Product<T>& product = products_[i];
          const bool add = first > 0 || (i > 0 && products_[i - 1].output == product.output);
          rows->read(p * width, first, depth, product.map);
          for (int part = 0; part < kernel.sample_parts; ++part) {
            const Index begin = width * part / kernel.sample_parts;
            for (Index g = 0; g < groups; ++g) {
              kernel.samples({part, static_cast<int>(samples_.count_of(g)), depth, rows->data(), rows->stride(),
                              samples_.at(product.operand, first, g), add, sum_of(p, product.output, g),
                              g == 0 && i == 0 ? rows->ahead(next_row + begin, next_first) : nullptr,
                              rows->stride_ahead()});
            }
          }
        }
      }
    }
    for (Index p = panels.first; p < panels.last; ++p) {
      for (Index g = 0; g < groups; ++g) {
        for (Index output = 0; output < outputs_; ++output) {
          kernel.pack_left(static_cast<int>(width), samples_.count_of(g), sum_of(p, output, g), width, 0,
                           out_(p, output) + samples_.first_of(g) * width);
        }
      }
      done_(p, Index{0}, samples_.count());
    }
  }

  Matrix<const T> weight_;
  const SamplesInLanes<T>& samples_;
  const std::vector<Product<T>>& products_;
  Index outputs_ = 1;
  Out out_;
  Done done_;
};

}  // namespace pylrp
