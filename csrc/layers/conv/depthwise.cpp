// Depthwise convolutions: a channel meets only itself. Along a line of the image the taps of one position lie a step
// beside those of the position before, so a stretch of a line where all of them are inside is one call of the kernel.
#include <algorithm>

#include "kernels/dispatch.hpp"
#include "layers/conv/mapped_taps.hpp"
#include "layers/conv/plan.hpp"

namespace pylrp {
namespace {

template <class T>
bool applies(const ConvWeights<T>& w) {
  return w.depthwise();
}

// Few rows, so that their sums stay in the L1 cache and small images make several tasks.
Index tasks_of(Index rows, Index channels) {
  const Index together = std::clamp<Index>(4096 / std::max<Index>(channels, 1), 28, 224);
  return (rows + together - 1) / together;
}

template <class T>
Index tasks(const ConvSums<T>& sums, const Walk& walk) {
  return tasks_of(sums.samples * walk.count(), sums.weights->shape.in_channels);
}

// Whether a tap of a row is inside the source along an axis.
bool is_inside(const Walk& walk, const KernelTap& tap, const Axes& row, std::size_t axis) {
  const Index x = walk.scale[axis] * row[axis] + tap.offset[axis];
  return x >= 0 && x < walk.source[axis];
}

// The positions [first, last) of a line where all taps are inside that meet the line at all.
struct Inner {
  Index first, last;
};
Inner inner_of_line(const Walk& walk, const Axes& row) {
  const Index scale = walk.scale[2];
  Inner inner{0, walk.rows[2]};
  for (const KernelTap& tap : walk.taps) {
    if (is_inside(walk, tap, row, 0) && is_inside(walk, tap, row, 1)) {
      const Index before = -tap.offset[2], behind = walk.source[2] - tap.offset[2];
      inner.first = std::max(inner.first, before > 0 ? (before + scale - 1) / scale : 0);
      inner.last = std::min(inner.last, behind > 0 ? (behind + scale - 1) / scale : 0);
    }
  }
  return inner;
}

// How many rows from position x of a line on, at most `most`, have the same taps inside.
Index stretch(const Walk& walk, const Inner& inner, Index x, Index most) {
  const bool inside = x >= inner.first && x < inner.last;
  return std::min(std::min(walk.rows[2], x + most), inside ? inner.last : x + 1) - x;
}

// The sums of rows [begin, begin + count) of a walk for one product, as out(count, channels); mapped: its weights.
template <class T>
void sum_lines(const T* mapped, const Walk& walk, const TapProduct<T>& product, Index begin, Index count, bool add,
               Index channels, T* out) {
  std::vector<const T*> at(walk.taps.size()), weights(walk.taps.size());
  kernels::Depthwise<T> line{.rows = 0,
                             .taps = 0,
                             .n = channels,
                             .at = at.data(),
                             .step = walk.scale[2] * product.image.pixel_stride,
                             .w = weights.data(),
                             .add = add,
                             .out = out,
                             .out_stride = channels};
  Inner inner{0, 0};
  for (Index r = begin; r < begin + count;) {
    const Place place(walk, r);
    if (r == begin || place.row[2] == 0) {
      inner = inner_of_line(walk, place.row);
    }
    const Index rows = stretch(walk, inner, place.row[2], begin + count - r);
    int taps = 0;
    for (const KernelTap& tap : walk.taps) {
      if (is_inside(walk, tap, place.row, 0) && is_inside(walk, tap, place.row, 1) &&
          is_inside(walk, tap, place.row, 2)) {
        Index pixel = 0;
        for (std::size_t a = 0; a < 3; ++a) {
          pixel = pixel * walk.source[a] + walk.scale[a] * place.row[a] + tap.offset[a];
        }
        const Image<T>& image = product.image;
        at[static_cast<std::size_t>(taps)] =
            image.data + place.sample * image.sample_stride + pixel * image.pixel_stride;
        weights[static_cast<std::size_t>(taps++)] = mapped + tap.kernel * channels;
      }
    }
    line.rows = static_cast<int>(rows);
    line.taps = taps;
    line.out = out + (r - begin) * channels;
    kernels::table<T>().depthwise(line);
    r += rows;
  }
}

template <class T>
void run(const ConvSums<T>& sums, const Threads& threads) {
  const Index channels = sums.weights->shape.in_channels;
  std::vector<MappedTaps<T>> weights;
  for (const TapProduct<T>& product : sums.products) {
    weights.emplace_back(*sums.weights, product.map);
  }
  Index task_base = 0;
  for (const Walk& walk : sums.walks()) {
    const Index rows = sums.samples * walk.count(), tasks = tasks_of(rows, channels);
    parallel_for(tasks, threads, [&](Index task) {
      const Rows block(walk, rows * task / tasks, rows * (task + 1) / tasks);
      const Index size = block.count() * channels;
      const Buffer<T> memory(sums.outputs * size);
      if (sums.products.empty()) {
        std::fill_n(memory.data(), sums.outputs * size, T(0));
      }
      for (std::size_t i = 0; i < sums.products.size(); ++i) {
        const TapProduct<T>& product = sums.products[i];
        sum_lines(weights[i].data(), walk, product, block.begin(), block.count(),
                  i > 0 && sums.products[i - 1].output == product.output, channels,
                  memory.data() + product.output * size);
      }
      sums.done(
          task_base + task, block, 0, channels, [&](Index output) { return memory.data() + output * size; }, channels);
    });
    task_base += tasks;
  }
}

}  // namespace

template <class T>
ProductPath<T> depthwise() {
  return {ConvPath::kDepthwise, applies<T>, run<T>, tasks<T>};
}

template ProductPath<float> depthwise<float>();
template ProductPath<double> depthwise<double>();

}  // namespace pylrp
