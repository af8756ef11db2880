#include "products/tap_quads.hpp"

#include <algorithm>
#include <limits>
#include <memory>

#include "kernels/dispatch.hpp"
#include "products/tap_lists.hpp"

namespace pylrp {
namespace {

// Windows of a task: its lists take about a megabyte.
constexpr Index kListBytes = Index{1} << 20;
constexpr Index kLeastWindows = 56, kMostWindows = 112;
constexpr Index kMinTasks = 8;  // that are wanted

Index width() { return kernels::table<float>().tile_cols; }

// The quads of source pixels that a block's windows meet, by the place of their first pixel, numbered; and the number
// of each window's for each tap.
class Quads {
 public:
  Quads(const Walk& walk, const QuadWindows& windows, const QuadBlock& block);
  Index count() const { return static_cast<Index>(origins_.size()); }
  const std::int32_t* numbers(std::size_t tap) const {
    return numbers_.data() + tap * static_cast<std::size_t>(windows_);
  }
  // Its four pixels, or -1 where one is outside.
  void pixels(Index quad, Index* at) const;

 private:
  const Walk& walk_;
  Index windows_;
  std::vector<Axes> origins_;
  std::vector<std::int32_t> numbers_;
};

Quads::Quads(const Walk& walk, const QuadWindows& windows, const QuadBlock& block)
    : walk_(walk), windows_(block.windows) {
  Axes least{}, most{};
  for (const KernelTap& tap : walk.taps) {
    for (std::size_t a = 0; a < 3; ++a) {
      least[a] = std::min(least[a], tap.offset[a]);
      most[a] = std::max(most[a], tap.offset[a]);
    }
  }
  // Places of all origins, in an image with room around it.
  const Index high = walk.target[1] + most[1] - least[1] + 1, wide = walk.target[2] + most[2] - least[2] + 1;
  const auto place = [&](const Axes& at) {
    return ((at[0] - least[0]) * high + at[1] - least[1]) * wide + at[2] - least[2];
  };
  std::vector<Axes> all;
  Index first = std::numeric_limits<Index>::max(), last = 0;
  for (const KernelTap& tap : walk.taps) {
    for (Index i = 0; i < windows_; ++i) {
      Axes at = windows.origin(block.first + i);
      for (std::size_t a = 0; a < 3; ++a) {
        at[a] += tap.offset[a];
      }
      all.push_back(at);
      first = std::min(first, place(at));
      last = std::max(last, place(at));
    }
  }
  std::vector<std::int32_t> known(static_cast<std::size_t>(all.empty() ? 0 : last - first + 1), -1);
  numbers_.reserve(all.size());
  for (const Axes& at : all) {
    std::int32_t& number = known[static_cast<std::size_t>(place(at) - first)];
    if (number < 0) {
      number = static_cast<std::int32_t>(origins_.size());
      origins_.push_back(at);
    }
    numbers_.push_back(number);
  }
}

void Quads::pixels(Index quad, Index* at) const {
  const Axes& from = origins_[static_cast<std::size_t>(quad)];
  for (Index q = 0; q < 4; ++q) {
    const Index z = from[0], y = from[1] + q / 2, x = from[2] + q % 2;
    const bool inside = z >= 0 && z < walk_.source[0] && y >= 0 && y < walk_.source[1] && x >= 0 && x < walk_.source[2];
    at[q] = inside ? (z * walk_.source[1] + y) * walk_.source[2] + x : -1;
  }
}

// Lists (parts of the channels, quads) of an image.
struct QuadLists {
  QuadLists(const Quads& quads, const Image<float>& image, Index sample, const QuadWork& work);
  Index count;
  Buffer<float> values;
  Buffer<std::uint16_t> steps;
  std::vector<Index> begins;
};

QuadLists::QuadLists(const Quads& quads, const Image<float>& image, Index sample, const QuadWork& work)
    : count(quads.count()), values(4 * (count * work.channels + 1)), steps(count * work.channels + 1) {
  const Index channels = work.channels, most = pair_steps<float>(), parts = list_parts(channels, most);
  begins.reserve(static_cast<std::size_t>(parts * count + 1));
  Buffer<float> own_zeros;
  const float* const nothing = zeros<float>(most, &own_zeros);
  Index kept = 0;
  for (Index part = 0; part < parts; ++part) {
    const Index first = part * most, depth = std::min(most, channels - first);
    for (Index i = 0; i < count; ++i) {
      Index at[4];
      const float* x[4];
      quads.pixels(i, at);
      for (int q = 0; q < 4; ++q) {
        x[q] = at[q] < 0 ? nothing : image.data + sample * image.sample_stride + at[q] * image.pixel_stride + first;
      }
      begins.push_back(kept);
      kept += work.operands.compress(4, depth, x, values.data() + 4 * kept, steps.data() + kept);
    }
  }
  begins.push_back(kept);
}

// One call of multiply_quads(): what its tasks share.
class QuadLoops {
 public:
  QuadLoops(const QuadWork& work, const Threads& threads);
  void run_task(Index task) const;

 private:
  struct Chosen {
    const std::int32_t* data;
    Index stride;
  };
  using Lists = std::vector<std::shared_ptr<const QuadLists>>;  // of each product's image
  // A product's packed panels from one on, each (taps, channels, width), and which of them are not finite.
  struct Panels {
    Index first = 0;
    Buffer<float> weights = {};
    std::vector<char> not_finite = {};
  };
  const float* weights(const Panels& panels, Index panel) const {
    return panels.weights.data() + (panel - panels.first) * panel_size_;
  }
  Panels pack(std::size_t product, Index first, Index count, const Threads& threads) const;
  Lists make_lists(const Quads& quads, const QuadBlock& block, Index panels) const;
  void add_product(const QuadBlock& block, const Quads& quads, const QuadLists& lists, const Panels& panels,
                   Index first, Index count, const Chosen& choice, bool add, float* sums) const;
  void run_panels(const QuadBlock& block, const Quads& quads, const Lists& lists, Index first, Index count,
                  const Chosen& choice) const;

  const QuadWork& work_;
  QuadWindows windows_;
  Index panel_size_;
  std::vector<Panels> shared_;  // all of each product; none where tasks pack their own
};

QuadLoops::QuadLoops(const QuadWork& work, const Threads& threads)
    : work_(work),
      windows_(work.walk->target),
      panel_size_(static_cast<Index>(work.walk->taps.size()) * work.channels * width()) {
  for (std::size_t i = 0; !work.packs_in_tasks() && i < work.products.size(); ++i) {
    shared_.push_back(pack(i, 0, work.panels(), threads));
  }
}

QuadLoops::Panels QuadLoops::pack(std::size_t product, Index first, Index count, const Threads& threads) const {
  Panels panels{first, Buffer<float>(count * panel_size_, threads.workspace),
                std::vector<char>(static_cast<std::size_t>(count))};
  const TapProduct<float>& of = work_.products[product];
  parallel_for(count, threads.alone_if(count * panel_size_ < kMinWeightsToPackInParallel), [&](Index i) {
    const Index column = (first + i) * width();
    float* const packed = panels.weights.data() + i * panel_size_;
    float* to = packed;
    for (const KernelTap& tap : work_.walk->taps) {
      pack_words_or_numbers(work_.operands, of.order, 0, work_.channels, work_.steps, width(), to,
                            [&](Index channel, Index channels, float* x) {
                              work_.pack(
                                  {0, tap.kernel, channel, channels, column, std::min(width(), work_.columns - column)},
                                  of.map, x);
                            });
      to += work_.channels * width();
    }
    panels.not_finite[static_cast<std::size_t>(i)] =
        has_not_finite<float>(work_.operands, packed, panel_size_ / width());
  });
  return panels;
}

QuadLoops::Lists QuadLoops::make_lists(const Quads& quads, const QuadBlock& block, Index panels) const {
  Lists lists;
  const Index entries = quads.count() * work_.channels;
  const Index all = 4 * block.windows * panel_size_ * panels;  // multiply-adds, as tiles would need them
  for (std::size_t i = 0; i < work_.products.size(); ++i) {
    const Image<float>& image = work_.products[i].image;
    lists.push_back(i > 0 && image.data == work_.products[i - 1].image.data
                        ? lists.back()
                        : std::make_shared<QuadLists>(quads, image, block.sample, work_));
    const double share =
        static_cast<double>(lists.back()->begins.back()) / static_cast<double>(std::max<Index>(1, entries));
    count_left_work(
        {0, static_cast<std::uint64_t>(all), static_cast<std::uint64_t>(share * static_cast<double>(all / 4))});
  }
  return lists;
}

void QuadLoops::run_task(Index number) const {
  const Index splits = work_.splits(), blocks = work_.blocks();
  const Index split = number % splits, part = number / splits % blocks;
  const Index first = windows_.count() * part / blocks, all = work_.panels();
  const Index panel = all * split / splits, panels = all * (split + 1) / splits - panel, column = panel * width();
  const QuadBlock block{number,          number / splits / blocks,
                        first,           windows_.count() * (part + 1) / blocks - first,
                        column,          std::min(panels * width(), work_.columns - column),
                        panels * width()};
  const Quads quads(*work_.walk, windows_, block);
  const Lists lists = make_lists(quads, block, panels);
  const Buffer<std::int32_t> choice(block.windows * block.stride);
  work_.choose(block, choice.data());
  const Index together = pair_panels<float>(), groups = (panels + together - 1) / together;
  for (Index group = 0; group < groups; ++group) {  // of nearly equal size
    const Index begin = panels * group / groups, count = panels * (group + 1) / groups - begin;
    run_panels(block, quads, lists, panel + begin, count, {choice.data() + begin * width(), block.stride});
  }
}

// Some panels of a task, side by side.
void QuadLoops::run_panels(const QuadBlock& block, const Quads& quads, const Lists& lists, Index first, Index count,
                           const Chosen& choice) const {
  const Index stride = count * width(), column = first * width();
  const Buffer<float> memory(work_.outputs * block.windows * stride);
  const float* sums[kernels::kMaxSums] = {};
  const QuadBlock some{
      block.task, block.sample, block.first, block.windows, column, std::min(stride, work_.columns - column), stride};
  for (Index q = 0; q < work_.outputs; ++q) {
    float* const sum = memory.data() + q * block.windows * stride;
    sums[q] = sum;
    if (q == 1 && work_.second && work_.second(some, sums[0], choice.data, choice.stride, sum)) {
      continue;
    }
    bool add = false;
    for (std::size_t i = 0; i < work_.products.size(); ++i) {
      if (work_.products[i].output == q) {
        const Panels own = shared_.empty() ? pack(i, first, count, {}) : Panels{};
        add_product(block, quads, *lists[i], shared_.empty() ? own : shared_[i], first, count, choice, add, sum);
        add = true;
      }
    }
  }
  work_.done(some, sums, choice.data, choice.stride);
}

// Taps and parts of the channels outermost, so that the weights stay in the L1 cache for all windows.
void QuadLoops::add_product(const QuadBlock& block, const Quads& quads, const QuadLists& lists, const Panels& panels,
                            Index first, Index count, const Chosen& choice, bool add, float* sums) const {
  const Index most = pair_steps<float>();
  const float* panel[kernels::kQuadPanels];
  float* out[kernels::kQuadPanels];
  for (Index p = 0; p < count; ++p) {
    out[p] = sums + p * width();
  }
  for (std::size_t tap = 0; tap < work_.walk->taps.size(); ++tap) {
    for (Index part = 0; part * most < work_.channels; ++part) {
      for (Index p = 0; p < count; ++p) {
        panel[p] = weights(panels, first + p) + (static_cast<Index>(tap) * work_.channels + part * most) * width();
      }
      work_.operands.list_quads({{.rows = block.windows,
                                  .values = lists.values.data(),
                                  .steps = lists.steps.data(),
                                  .begins = lists.begins.data() + part * lists.count,
                                  .list_of = quads.numbers(tap),
                                  .panels = static_cast<int>(count),
                                  .panel = panel,
                                  .add = add,
                                  .out = out,
                                  .out_stride = count * width()},
                                 choice.data,
                                 choice.stride});
      add = true;
    }
  }
  for (Index p = 0; p < count; ++p) {
    if (panels.not_finite[static_cast<std::size_t>(first + p - panels.first)] != 0) {
      add_not_finite(work_.operands, weights(panels, first + p), panel_size_ / width(), block.windows, out[p],
                     count * width());
    }
  }
}

}  // namespace

Index QuadWork::panels() const { return (columns + width() - 1) / width(); }

Index QuadWork::blocks() const {
  const Index of_a_window = 4 * 4 * Index{sizeof(float)} * channels;  // it meets about four quads
  const Index together = std::clamp(kListBytes / of_a_window, kLeastWindows, kMostWindows);
  return (QuadWindows(walk->target).count() + together - 1) / together;
}

Index QuadWork::splits() const {
  const Index have = std::max<Index>(1, samples * blocks());
  const Index groups = (panels() + pair_panels<float>() - 1) / pair_panels<float>();
  return std::clamp<Index>((kMinTasks + have - 1) / have, 1, groups);
}

// Once more for a second block, but close to where they are read; all of them are 9 MB in VGG16's last layers, while
// all outputs are kept.
bool QuadWork::packs_in_tasks() const { return samples * blocks() <= 2; }

void multiply_quads(const QuadWork& work, const Threads& threads) {
  const QuadLoops loops(work, threads);
  parallel_for(work.tasks(), threads, [&](Index task) { loops.run_task(task); });
}

}  // namespace pylrp
