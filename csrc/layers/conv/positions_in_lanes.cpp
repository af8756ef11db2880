// The forward pass of a kernel of one where positions are few and weights many: positions lie along the lanes of the
// vectors as the samples of a dense layer do, so that weights, which come from memory, are read where they stand.
#include <algorithm>
#include <type_traits>
#include <vector>

#include "kernels/dispatch.hpp"
#include "layers/conv/plan.hpp"
#include "products/panels.hpp"
#include "products/samples_in_lanes.hpp"

namespace pylrp {
namespace {

// 14 x 14 pixels. A vector that positions fill in part costs as much as a full one.
constexpr Index kMostPositions = 224;
constexpr Index kLeastWeights = Index{1} << 14;
constexpr double kDense = 0.9;  // with less of the input not zero lists are faster

// Single precision: a second instance is not worth its size.
template <class T>
bool applies(const ConvWeights<T>& w, Matrix<const T> input, const Threads& threads) {
  const Index rows = input.rows * count(w.target());
  const Matrix<const T> weight = w.matrix();
  return std::is_same_v<T, float> && w.is_1x1() && rows >= kernels::table<T>().tile_rows && rows <= kMostPositions &&
         weight.rows * weight.cols >= kLeastWeights && (input.rows == 1 || input.stride == w.source_size()) &&
         !threads.bfloat16 && !lists_forced() && share_of_nonzeros(input.data, weight.cols, rows, weight.cols) > kDense;
}

template <class T>
void run_lanes(const ConvWeights<T>& w, Matrix<const T> input, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Matrix<const T> weight = w.matrix();
  const Index positions = count(w.target()), rows = input.rows * positions, in = weight.cols, out = weight.rows;
  const Index width = kernel.tile_cols;
  const SamplesInLanes<T> samples(
      1, rows, in, threads, [&](Index, Index row, Index count, Index first, Index depth, T* to) {
        kernel.pack_left(static_cast<int>(count), depth, input.data + row * in + first, in, 0, to);
      });
  // Of a panel, which a thread takes from its last sum to the output at once.
  const auto sums = [&] {
    thread_local std::vector<T> memory;
    memory.resize(std::max(memory.size(), static_cast<std::size_t>(rows * width + kernels::kSpare)));
    return memory.data();
  };
  const auto finish = [&](Index panel, Index, Index) {
    const Index column = panel * width;
    for (Index sample = 0; sample < input.rows; ++sample) {
      kernel.finish({.rows = positions,
                     .cols = std::min(width, out - column),
                     .acc = sums() + sample * positions * width,
                     .acc_stride = width,
                     .bias = w.bias ? w.bias + column : nullptr,
                     .low = clamp.low,
                     .high = clamp.high,
                     .out = output.row(sample) + column,
                     .out_stride = out});
    }
  };
  const std::vector<Product<T>> products{{0, 0, weights_of<T>(WeightMap{})}};
  SampleProducts(weight, samples, products, [&](Index, Index) { return sums(); }, finish).run(threads);
}

template <class T>
void run(const ConvWeights<T>& w, Matrix<const T> input, Matrix<T> output, const Clamp<T>& clamp,
         const Threads& threads) {
  if constexpr (std::is_same_v<T, float>) {
    run_lanes(w, input, output, clamp, threads);
  }
}

}  // namespace

template <class T>
ForwardPath<T> positions_in_lanes() {
  return {ConvPath::kPositionsInLanes, applies<T>, run<T>};
}

template ForwardPath<float> positions_in_lanes<float>();
template ForwardPath<double> positions_in_lanes<double>();

}  // namespace pylrp
