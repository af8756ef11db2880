// The way back to an image of few channels, as in front of most networks. With channels as columns of the product most
// of a vector would be idle: so each position of the output makes what it sends to all its taps, (taps, channels) side
// by side, and each pixel of the input gathers what was sent to it.
#include <array>

#include "kernels/dispatch.hpp"
#include "layers/conv/conv.hpp"
#include "products/panels.hpp"
#include "rules/kernel_args.hpp"

namespace pylrp {
namespace {

constexpr Index kBytes = Index{16} << 20;  // of what is sent, at a time
constexpr Index kPositions = 112;          // a task: a multiple of every tile's rows, or nearly

// Which positions of the output meet a pixel along an axis, and by which tap.
struct Meeting {
  Index position, tap;
};
std::array<std::vector<std::vector<Meeting>>, 3> meetings(const ConvShape& shape) {
  std::array<std::vector<std::vector<Meeting>>, 3> along;
  for (std::size_t a = 0; a < 3; ++a) {
    along[a].resize(static_cast<std::size_t>(shape.in[a]));
    for (Index position = 0; position < shape.out[a]; ++position) {
      for (Index tap = 0; tap < shape.kernel[a]; ++tap) {
        const Index pixel = position * shape.stride[a] + tap * shape.dilation[a] - shape.pad[a];
        if (pixel >= 0 && pixel < shape.in[a]) {
          along[a][static_cast<std::size_t>(pixel)].push_back({position, tap});
        }
      }
    }
  }
  return along;
}

}  // namespace

template <class T>
bool is_narrow(const ConvWeights<T>& w) {
  const Index lanes = kernels::table<T>().tile_cols / 2, taps = w.shape.taps(), channels = w.source_channels();
  return !w.transposed && !w.depthwise() && w.shape.groups == 1 && taps > 1 && 2 * channels <= lanes &&
         taps * channels <= 16 * lanes && w.target_channels() >= lanes;
}

template <class T>
void spread_to_few(const ConvWeights<T>& w, const LoweredRule& rule, const RelevanceJob<T>& job,
                   const PartOfJob<T>& part, const T* shares, const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index channels = w.source_channels(), depth = w.target_channels(), rows = part.targets * part.samples;
  const Index positions = count(w.target()), sent = w.shape.taps() * channels, stride = padded(sent, kernel.tile_cols);
  PanelSet<T> panels(w.matrix(), threads.workspace);  // a row of the weights holds all taps
  std::vector<std::size_t> down;
  kernels::Mixed<T> plan;
  plan.count = 0;
  for (std::size_t b = 0; b < rule.back.size(); ++b) {
    down.push_back(panels.add(rule.back[b].map, false));
    if (!rule.joins(b)) {
      plan.mix[plan.count++] = mix_of<T>(rule.back[b]);
    }
  }
  panels.pack(threads);
  const auto along = meetings(w.shape);
  const Index lines = w.shape.in[0] * w.shape.in[1], width = w.shape.in[2],
              pieces = (positions + kPositions - 1) / kPositions;
  const Index page = positions * stride,
              at_once = std::clamp<Index>(kBytes / (plan.count * page * Index(sizeof(T))), 1, rows);
  const Buffer<T> memory(at_once * plan.count * page, threads.workspace);
  for (Index first = 0; first < rows; first += at_once) {
    const Index some = std::min(at_once, rows - first);
    const auto page_of = [&](Index row, int sum) { return memory.data() + (row * plan.count + sum) * page; };
    parallel_for(some * pieces, threads, [&](Index task) {
      const Index row = task / pieces, begin = positions * (task % pieces) / pieces;
      const Index height = positions * (task % pieces + 1) / pieces - begin;
      int sum = -1;
      for (std::size_t b = 0; b < rule.back.size(); ++b) {
        sum += rule.joins(b) ? 0 : 1;
        const T* const s = shares + ((rule.back[b].group * rows + first + row) * positions + begin) * depth;
        multiply(s, depth, height, panels.down(down[b]), rule.joins(b), page_of(row, sum) + begin * stride, stride);
      }
    });
    parallel_for(some * lines, threads, [&](Index task) {
      const Index row = task / lines, line = task % lines;
      const std::size_t z = static_cast<std::size_t>(line / w.shape.in[1]);
      const std::size_t y = static_cast<std::size_t>(line % w.shape.in[1]);
      const Buffer<T> gathered(plan.count * width * channels);
      std::vector<Index> offsets;
      std::vector<const T*> at;
      for (Index x = 0; x < width; ++x) {
        offsets.clear();
        for (const Meeting& c : along[0][z]) {
          for (const Meeting& b : along[1][y]) {
            for (const Meeting& a : along[2][static_cast<std::size_t>(x)]) {
              const Index position = (c.position * w.shape.out[1] + b.position) * w.shape.out[2] + a.position;
              const Index tap = (c.tap * w.shape.kernel[1] + b.tap) * w.shape.kernel[2] + a.tap;
              offsets.push_back(position * stride + tap * channels);
            }
          }
        }
        for (int sum = 0; sum < plan.count; ++sum) {
          T* const to = gathered.data() + (sum * width + x) * channels;
          at.clear();
          for (const Index offset : offsets) {
            at.push_back(page_of(row, sum) + offset);
          }
          if (at.empty()) {
            std::fill_n(to, channels, T(0));
          } else {
            kernel.pool_rows(static_cast<int>(at.size()), at.data(), channels, false, T(1), to);
          }
        }
      }
      kernels::Mixed<T> mixed = plan;
      for (int sum = 0; sum < plan.count; ++sum) {
        mixed.acc[sum] = gathered.data() + sum * width * channels;
      }
      const Index size = width * channels, offset = line * size, target = (first + row) / part.samples;
      const Index sample = (first + row) % part.samples;
      kernel.accumulate(1, size, mixed, size, job.inputs[0] ? job.inputs[0].row(part.begin + sample) + offset : nullptr,
                        size, job.bounds.low ? job.bounds.low + offset : nullptr,
                        job.bounds.high ? job.bounds.high + offset : nullptr, size, false,
                        job.results[0].row(part.row(job, target, sample)) + offset, size);
    });
  }
}

template bool is_narrow<float>(const ConvWeights<float>&);
template bool is_narrow<double>(const ConvWeights<double>&);
template void spread_to_few<float>(const ConvWeights<float>&, const LoweredRule&, const RelevanceJob<float>&,
                                   const PartOfJob<float>&, const float*, const Threads&);
template void spread_to_few<double>(const ConvWeights<double>&, const LoweredRule&, const RelevanceJob<double>&,
                                    const PartOfJob<double>&, const double*, const Threads&);

}  // namespace pylrp
