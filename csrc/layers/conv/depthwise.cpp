// Depthwise convolutions: a channel meets only itself. Along a line of the image the taps of one position lie a step
// beside those of the position before, so a stretch of a line where all of them are inside is one call.
#include <algorithm>

#include "kernels/dispatch.hpp"
#include "layers/conv/conv.hpp"

namespace pylrp {
namespace {

// The sums of rows [begin, begin + count) of a walk for one product, as out(count, channels).
template <class T>
void sum_lines(const ConvWeights<T>& w, const Walk& walk, const TapProduct<T>& product, Index begin, Index count,
               bool add, T* out) {
  const Index channels = w.shape.in_channels, width = walk.rows[2];
  const Axes& source = walk.source;
  std::vector<const T*> at(walk.taps.size()), weights(walk.taps.size());
  const auto meets = [&](const Walk::Tap& tap, const Axes& row, std::size_t a) {
    const Index x = walk.scale[a] * row[a] + tap.offset[a];
    return x >= 0 && x < source[a];
  };
  for (Index r = begin; r < begin + count;) {
    const Place place(walk, r);
    // As far as the line goes, the task goes, and the same taps are inside.
    Index last = std::min(width, place.row[2] + begin + count - r), inner_first = 0, inner_last = width;
    for (const Walk::Tap& tap : walk.taps) {
      if (meets(tap, place.row, 0) && meets(tap, place.row, 1)) {
        const Index scale = walk.scale[2], before = -tap.offset[2], behind = source[2] - tap.offset[2];
        inner_first = std::max(inner_first, before > 0 ? (before + scale - 1) / scale : 0);
        inner_last = std::min(inner_last, behind > 0 ? (behind + scale - 1) / scale : 0);
      }
    }
    const bool inside = place.row[2] >= inner_first && place.row[2] < inner_last;
    last = std::min(last, inside ? inner_last : place.row[2] + 1);
    int taps = 0;
    for (const Walk::Tap& tap : walk.taps) {
      if (meets(tap, place.row, 0) && meets(tap, place.row, 1) && meets(tap, place.row, 2)) {
        Index pixel = 0;
        for (std::size_t a = 0; a < 3; ++a) {
          pixel = pixel * source[a] + walk.scale[a] * place.row[a] + tap.offset[a];
        }
        const Image<T>& image = product.image;
        at[static_cast<std::size_t>(taps)] =
            image.data + place.sample * image.sample_stride + pixel * image.pixel_stride;
        weights[static_cast<std::size_t>(taps++)] = w.weight + tap.kernel * channels;
      }
    }
    const Index rows = last - place.row[2];
    kernels::table<T>().depthwise(static_cast<int>(rows), taps, channels, at.data(),
                                  walk.scale[2] * product.image.pixel_stride, weights.data(), product.map, add,
                                  out + (r - begin) * channels, channels);
    r += rows;
  }
}

}  // namespace

template <class T>
void depthwise_sums(const ConvSums<T>& sums, const Threads& threads) {
  const Index channels = sums.weights->shape.in_channels;
  Index task_base = 0;
  for (const Walk& walk : sums.walks()) {
    const Index rows = sums.samples * walk.count(), tasks = depthwise_tasks(rows, channels);
    parallel_for(tasks, threads, [&](Index task) {
      const Rows block(walk, rows * task / tasks, rows * (task + 1) / tasks);
      const Index size = block.count() * channels;
      const Buffer<T> memory(sums.outputs * size);
      if (sums.products.empty()) {
        std::fill_n(memory.data(), sums.outputs * size, T(0));
      }
      for (std::size_t i = 0; i < sums.products.size(); ++i) {
        const TapProduct<T>& product = sums.products[i];
        sum_lines(*sums.weights, walk, product, block.begin(), block.count(),
                  i > 0 && sums.products[i - 1].output == product.output, memory.data() + product.output * size);
      }
      sums.done(
          task_base + task, block, 0, channels, [&](Index output) { return memory.data() + output * size; }, channels);
    });
    task_base += tasks;
  }
}

template void depthwise_sums<float>(const ConvSums<float>&, const Threads&);
template void depthwise_sums<double>(const ConvSums<double>&, const Threads&);

}  // namespace pylrp
