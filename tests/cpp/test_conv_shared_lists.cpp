// Tasks of a convolution that take the same rows share lists of what is not zero: made, and counted, once.
#include <algorithm>
#include <vector>

#include "check.hpp"
#include "conv_run.hpp"
#include "fenced.hpp"
#include "kernel_cases.hpp"
#include "products/lists.hpp"
#include "products/taps.hpp"
#include "rules/kernel_args.hpp"

namespace pylrp {
namespace {

constexpr Index kPanels = 3;

// A product over taps with half of its image zero, and what it should be.
template <class T>
struct SharedCase {
  Index width = kernels::table<T>().tile_cols, channels, groups, columns = kPanels * width - 3;
  Walk walk;
  Index taps = static_cast<Index>(walk.taps.size());
  Fenced<T> image, weights;
  TapWork<T> work;

  SharedCase(const Geometry& geometry, Index channels_, Index groups_)
      : channels(channels_),
        groups(groups_),
        walk(walks_to_out(geometry.shape(channels * groups, columns * groups, groups))[0]),
        image(count(walk.source), channels * groups, 0),
        weights(groups * columns, taps * channels, 0),
        work{&walk, 1, groups, channels, columns, {}, 1, {}, {}, Operands<T>(), channels} {
    Random random(7);
    image.fill([&] { return random() > 0 ? random() : 0; });
    weights.fill(random);
    work.products.push_back({{image.data(), 0, channels * groups}, weights_of<T>(WeightMap{}), 0});
    work.pack = [this](const Cut& cut, kernels::Weights<T> map, T* to) {
      return kernels::table<T>().pack_forward(
          static_cast<int>(cut.columns), cut.channels,
          &weights.at(cut.group * columns + cut.column, cut.tap * channels + cut.channel), weights.stride(), map, to,
          kernels::table<T>().tile_cols);
    };
  }

  Index row_size() const { return groups * columns; }
  std::vector<T> sums(int threads) {
    std::vector<T> all(static_cast<std::size_t>(walk.count() * row_size()));
    work.done = [&](Index, const Rows& rows, Index column, Index some, const SumsOf<T>& of) {
      for (Index i = 0; i < rows.count(); ++i) {
        std::copy_n(of(0) + i * width, some, all.data() + (rows.begin() + i) * row_size() + column);
      }
    };
    multiply_taps(work, Threads{threads});
    return all;
  }
  double sum(Index row, Index column) {
    const Block block(walk, row, row + 1);
    double sum = 0;
    for (Index t = 0; t < taps; ++t) {
      block.each_source(0, 1, static_cast<std::size_t>(t), 1, [&](bool inside, Index, Index pixel) {
        for (Index k = 0; inside && k < channels; ++k) {
          sum +=
              double{image.at(pixel, column / columns * channels + k)} * double{weights.at(column, t * channels + k)};
        }
      });
    }
    return sum;
  }
};

template <class T>
void check_shared(const Geometry& geometry, Index channels, Index groups, bool in_tasks) {
  SharedCase<T> c(geometry, channels, groups);
  CHECK(c.work.splits() > 1 && (c.work.packs_in_tasks() == in_tasks || !is_built(ConvPath::kPackInTasks)));
  const LeftWork before = left_work();
  const std::vector<T> sums = c.sums(1);
  const LeftWork after = left_work();
  CHECK(after.lists - before.lists ==
        static_cast<std::uint64_t>(c.walk.count() * c.taps * groups * channels * kPanels * c.width));
  CHECK(after.tiles == before.tiles);
  CHECK(c.sums(3) == sums);
  for (Index row = 0; row < c.walk.count(); row += 13) {
    for (Index j = 0; j < c.row_size(); j += 7) {
      const double there = static_cast<double>(sums[static_cast<std::size_t>(row * c.row_size() + j)]);
      CHECK(std::abs(there - c.sum(row, j)) < (sizeof(T) == 4 ? 1e-4 : 1e-12));
    }
  }
}

TEST(tasks_with_the_same_rows_share_lists) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const LeftPath forced = forced_left_path();
    for (const LeftPath path : {LeftPath::kLists, LeftPath::kPairs}) {
      force_left_path(path);
      check_shared<T>({{1, 9, 13}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}, 150, 2, true);
      check_shared<T>({{1, 50, 50}, {1, 1, 2}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 1}}, 9, 1, false);
    }
    force_left_path(forced);
  });
}

}  // namespace
}  // namespace pylrp
