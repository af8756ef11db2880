#include <algorithm>

#include "kernels/dispatch.hpp"
#include "layers/conv.hpp"

namespace pylrp {

template <class T>
void depthwise_sums(const ConvSums<T>& sums, const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index channels = sums.weights->shape.in_channels;
  Index task_base = 0;
  for (const Walk& walk : sums.walks()) {
    const std::size_t taps = walk.taps.size();
    Buffer<T> own, weights(static_cast<Index>(taps) * channels);
    const T* const nothing = zeros<T>(channels, &own);
    for (std::size_t t = 0; t < taps; ++t) {
      std::copy_n(sums.weights->weight + walk.taps[t].kernel * channels, channels,
                  weights.data() + static_cast<Index>(t) * channels);
    }
    const Index rows = sums.samples * walk.count(), tasks = depthwise_tasks(rows);
    parallel_for(tasks, threads, [&](Index task) {
      const Block block(walk, rows * task / tasks, rows * (task + 1) / tasks);
      const Index height = block.rows();
      const Buffer<T> memory(sums.outputs * height * channels);
      if (taps == 0 || sums.products.empty()) {
        std::fill_n(memory.data(), sums.outputs * height * channels, T(0));
      }
      std::vector<const T*> pointers(taps * static_cast<std::size_t>(height));
      for (std::size_t i = 0; i < sums.products.size() && taps > 0; ++i) {
        const TapProduct<T>& product = sums.products[i];
        block.sources(product.image, 0, height, 0, taps, nothing, pointers.data());
        kernel.depthwise(static_cast<int>(height), static_cast<int>(taps), channels, pointers.data(), weights.data(),
                         product.map, i > 0 && sums.products[i - 1].output == product.output,
                         memory.data() + product.output * height * channels, channels);
      }
      sums.done(
          task_base + task, block, 0, channels,
          [&](Index output) { return memory.data() + output * height * channels; }, channels);
    });
    task_base += tasks;
  }
}

template void depthwise_sums<float>(const ConvSums<float>&, const Threads&);
template void depthwise_sums<double>(const ConvSums<double>&, const Threads&);

}  // namespace pylrp
